// SPDX-License-Identifier: GPL-2.0-only
// Large states as two lists to choose from: processes, and trees of anon_vmas by their roots.

import type { Part } from "./grouping";
import type { State } from "./state";
import { owners } from "./state";
import { escape, tag } from "./svg";
import type { Process, Vma } from "./types";
import { count } from "./words";

export interface Summary {
  name: string;
  vmas: number;
  avcs: number;
  anonVmas: number;
  longest: number;
}

export type Key = keyof Summary;

function summary(name: string, vmas: readonly Vma[], anonVmas: number): Summary {
  let avcs = 0;
  let longest = 0;
  for (const vma of vmas) {
    avcs += vma.chain.length;
    longest = Math.max(longest, vma.chain.length);
  }
  return { name, vmas: vmas.length, avcs, anonVmas, longest };
}

function ofProcess(process: Process): Summary {
  return summary(process.name, process.vmas, new Set(process.vmas.flatMap((vma) => vma.chain)).size);
}

export function processes(state: State): Summary[] {
  return [...owners(state).values()].map(ofProcess);
}

export function trees(state: State): Summary[] {
  const members = new Map<string, number>();
  for (const one of state.anonVmas.values()) members.set(one.root, (members.get(one.root) ?? 0) + 1);
  const vmas = new Map<string, Vma[]>([...members.keys()].map((root) => [root, []]));
  for (const process of owners(state).values()) {
    for (const vma of process.vmas) {
      const roots = new Set([...vma.chain, vma.anon_vma].map((id) => state.anonVmas.get(id ?? "")?.root));
      for (const root of roots) if (root !== undefined) vmas.get(root)?.push(vma);
    }
  }
  return [...members].map(([root, number]) => summary(root, vmas.get(root) ?? [], number));
}

export interface Order {
  key: Key;
  down: boolean;
}

export function sorted(rows: readonly Summary[], { key, down }: Order): Summary[] {
  const names = new Intl.Collator("en", { numeric: true });
  const sign = down ? -1 : 1;
  return [...rows].sort((a, b) => {
    const [one, other] = [a[key], b[key]];
    const by = typeof one === "number" && typeof other === "number" ? one - other : 0;
    return sign * by || (key === "name" ? sign : 1) * names.compare(a.name, b.name);
  });
}

const COLUMNS: [Key, string][] = [
  ["name", ""],
  ["vmas", "VMAs"],
  ["avcs", "AVCs"],
  ["anonVmas", "anon_vmas"],
  ["longest", "longest chain"],
];

export interface Listing {
  kind: Part["kind"];
  rows: readonly Summary[];
  order: Order;
  filter: string;
  /** How many to show. */
  most: number;
}

export function listing({ kind, rows, order, filter, most }: Listing): string {
  const matching = sorted(rows.filter((row) => row.name.toLowerCase().includes(filter.toLowerCase())), order);
  const shown = matching.slice(0, most);
  const heads = COLUMNS.map(([key, name]) => {
    const sort = order.key !== key ? null : order.down ? "descending" : "ascending";
    const arrow = sort === null ? "" : order.down ? " ↓" : " ↑";
    const label = name || (kind === "process" ? "process" : "root");
    return tag("th", { scope: "col", "aria-sort": sort }, tag("button", { type: "button", "data-sort": `${kind}:${key}` }, label + arrow));
  });
  const body = shown.map((row) => {
    const open = tag("button", { type: "button", "data-part": `${kind}:${row.name}` }, escape(row.name));
    const numbers = COLUMNS.slice(1).map(([key]) => tag("td", {}, count(Number(row[key]))));
    return tag("tr", {}, tag("th", { scope: "row" }, open) + numbers.join(""));
  });
  const caption = kind === "process" ? "Processes" : "Trees of anon_vmas, by root";
  const said = `${count(shown.length)} of ${count(matching.length)} shown${filter ? `, ${count(rows.length)} in all` : ""}`;
  const more = shown.length < matching.length ? tag("button", { type: "button", "data-more": kind }, "Show 200 more") : "";
  const head = tag("thead", {}, tag("tr", {}, heads.join("")));
  const table = tag("table", { class: "overview-table", "data-testid": `list-${kind}` }, tag("caption", {}, caption) + head + tag("tbody", {}, body.join("")));
  return tag("div", { class: "listing" }, table + tag("p", { class: "quiet" }, `${said} ${more}`));
}

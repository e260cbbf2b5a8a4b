// SPDX-License-Identifier: GPL-2.0-only
// The permalink: chapter, moment, toggles, selection, part and theme in the fragment of the address.

import type { Part } from "./grouping";

export type Theme = "light" | "dark";

export interface Where {
  chapter: number;
  point: number;
  inner: boolean;
  chain: boolean;
  tree: boolean;
  folios: boolean;
  selection: string | null;
  part: Part | null;
  theme: Theme | null;
}

type Toggle = "inner" | "chain" | "tree" | "folios";

const LETTERS: Record<Toggle, string> = { inner: "n", chain: "c", tree: "i", folios: "f" };
const TOGGLES = Object.entries(LETTERS) as [Toggle, string][];

export function format(where: Where): string {
  const letters = TOGGLES.filter(([name]) => where[name]).map(([, letter]) => letter);
  const fields = new URLSearchParams({ c: String(where.chapter + 1), m: String(where.point), t: letters.join("") });
  if (where.selection !== null) fields.set("s", where.selection);
  if (where.part) fields.set("p", `${where.part.kind}:${where.part.name}`);
  if (where.theme) fields.set("th", where.theme);
  return `#${fields.toString()}`;
}

const whole = (text: string | null): number | null => (text !== null && /^\d{1,9}$/.test(text) ? Number(text) : null);

function partOf(text: string | null): Part | null {
  const [, kind, name] = /^(process|tree):(.+)$/.exec(text ?? "") ?? [];
  return name !== undefined ? { kind: kind as Part["kind"], name } : null;
}

/** What a fragment says; what it does not say, or not well, is left out. */
export function parse(hash: string): Partial<Where> {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  const found: Partial<Where> = {};
  const chapter = whole(fields.get("c"));
  if (chapter !== null && chapter > 0) found.chapter = chapter - 1;
  const point = whole(fields.get("m"));
  if (point !== null) found.point = point;
  const letters = fields.get("t");
  if (letters !== null) for (const [name, letter] of TOGGLES) found[name] = letters.includes(letter);
  if (fields.size > 0) {
    found.selection = fields.get("s");
    found.part = partOf(fields.get("p"));
  }
  const theme = fields.get("th");
  if (theme === "light" || theme === "dark") found.theme = theme;
  return found;
}

// SPDX-License-Identifier: GPL-2.0-only
// Large states: the part to draw, and runs of VMAs with the same chain as one row.

import { parents } from "./family";
import type { History } from "./state";
import type { AnonVma, Process, Vma } from "./types";

/** What is drawn of a large state: one process, or one tree by its root. */
export interface Part {
  kind: "process" | "tree";
  name: string;
}

/** A row of the drawing: one VMA, or a run of neighbours under the id of the first. */
export interface Row {
  id: string;
  process: string;
  start: number;
  end: number;
  vmas: Vma[];
}

/** Which VMAs stand in which row. */
export interface Plan {
  /** Row of each VMA that is drawn. */
  rowOf: ReadonlyMap<string, string>;
  /** Rows that are runs, with the number of their VMAs. */
  runs: ReadonlyMap<string, number>;
  /** VMAs drawn, in a row of their own or in a run. */
  drawn: number;
  /** VMAs of the part. */
  total: number;
}

export const STEP = 100;

export function vmaCount(history: History): number {
  return new Set(history.processes.flatMap((process) => process.vmas.map((vma) => vma.id))).size;
}

function belongs(vma: Vma, process: Process, part: Part, roots: ReadonlyMap<string, string>): boolean {
  if (part.kind === "process") return process.name === part.name;
  const own = vma.anon_vma === null ? [] : [vma.anon_vma];
  return [...vma.chain, ...own].some((id) => roots.get(id) === part.name);
}

export function rootsOf(versions: Iterable<AnonVma>): Map<string, string> {
  const found = new Map<string, string>();
  for (const one of versions) found.set(one.id, one.root);
  return found;
}

/** The part of a history: the versions of its processes with only its VMAs, and what those refer to. */
export function restrict(all: History, part: Part): History {
  const roots = rootsOf(all.anonVmas);
  const processes = all.processes
    .map((process) => ({ ...process, vmas: process.vmas.filter((vma) => belongs(vma, process, part, roots)) }))
    .filter((process) => process.vmas.length > 0);
  const named = new Set(
    processes.flatMap((process) => process.vmas.flatMap((vma) => [...vma.chain, ...(vma.anon_vma === null ? [] : [vma.anon_vma])])),
  );
  const kept = (id: string): boolean => (part.kind === "process" ? named.has(id) : roots.get(id) === part.name);
  const mms = new Set(processes.map((process) => process.mm));
  const maps = (ptes: readonly { mm: string }[]): boolean => ptes.some((pte) => mms.has(pte.mm));
  return {
    processes,
    anonVmas: all.anonVmas.filter((one) => kept(one.id)),
    folios: all.folios.filter((folio) => maps(folio.ptes)),
    swap: all.swap.filter((slot) => maps(slot.ptes)),
    guards: all.guards.filter((guard) => mms.has(guard.mm)),
  };
}

interface Line {
  vma: Vma;
  process: string;
  /** Everything that a row shows of the VMA, over all its versions. */
  signature: string;
}

function lines(part: History): Line[] {
  const found = new Map<string, Line>();
  for (const process of part.processes) {
    for (const vma of process.vmas) {
      const shown = `${vma.anon_vma}:${vma.chain.join(",")}${vma.building ? "*" : ""}`;
      const line = found.get(vma.id);
      if (!line) found.set(vma.id, { vma, process: process.name, signature: shown });
      else if (!line.signature.endsWith(shown)) line.signature += `;${shown}`;
    }
  }
  return [...found.values()];
}

function runsOf(part: History): Line[][] {
  const rank = new Map([...new Set(part.processes.map((process) => process.name))].map((name, index) => [name, index]));
  const sorted = lines(part).sort(
    (a, b) => (rank.get(a.process) ?? 0) - (rank.get(b.process) ?? 0) || a.vma.start - b.vma.start,
  );
  const runs: Line[][] = [];
  for (const line of sorted) {
    const run = runs.at(-1);
    const first = run?.[0];
    if (run && first?.process === line.process && first.signature === line.signature) run.push(line);
    else runs.push([line]);
  }
  return runs;
}

/** Rows for a part: runs of three and more are one row, but for as many of their VMAs as were asked for. */
export function plan(part: History, opened: ReadonlyMap<string, number>, limit: number): Plan {
  const rowOf = new Map<string, string>();
  const runs = new Map<string, number>();
  let rows = 0;
  let total = 0;
  for (const run of runsOf(part)) {
    total += run.length;
    const single = run.length < 3 ? run.length : Math.min(run.length, opened.get(run[0]?.vma.id ?? "") ?? 0);
    run.forEach(({ vma }, index) => {
      if (index < single && rows < limit) {
        rows += 1;
        rowOf.set(vma.id, vma.id);
      }
    });
    const rest = run.slice(single);
    const head = rest[0];
    if (!head || rows >= limit) continue;
    rows += 1;
    for (const { vma } of rest) rowOf.set(vma.id, head.vma.id);
    if (rest.length > 1) runs.set(head.vma.id, rest.length);
  }
  return { rowOf, runs, drawn: rowOf.size, total };
}

/** Which run a row of the rest belongs to: the first VMA of the whole run, by which it is opened. */
export function headOfRun(part: History, id: string): string {
  const run = runsOf(part).find((one) => one.some((line) => line.vma.id === id));
  return run?.[0]?.vma.id ?? id;
}

const known = new WeakMap<Process, { planned: Plan | null; rows: Row[] }>();

/** The rows of one process: each VMA its own, or as planned. */
export function rowsOf(process: Process, planned: Plan | null): readonly Row[] {
  const last = known.get(process);
  if (last && last.planned === planned) return last.rows;
  const rows = makeRows(process, planned);
  known.set(process, { planned, rows });
  return rows;
}

function makeRows(process: Process, planned: Plan | null): Row[] {
  const rows = new Map<string, Row>();
  for (const vma of process.vmas) {
    const id = planned ? planned.rowOf.get(vma.id) : vma.id;
    if (id === undefined) continue;
    const row = rows.get(id);
    if (!row) {
      rows.set(id, { id, process: process.name, start: vma.start, end: vma.end, vmas: [vma] });
      continue;
    }
    row.vmas.push(vma);
    row.start = Math.min(row.start, vma.start);
    row.end = Math.max(row.end, vma.end);
  }
  return [...rows.values()];
}

/** A part without the VMAs that are not drawn, and without the anon_vmas that only those are linked to. */
export function drawnPart(part: History, planned: Plan): History {
  const processes = part.processes
    .map((process) => ({ ...process, vmas: process.vmas.filter((vma) => planned.rowOf.has(vma.id)) }))
    .filter((process) => process.vmas.length > 0);
  const parent = parents(part.anonVmas);
  const kept = new Set<string>();
  const keep = (id: string | null | undefined): void => {
    for (let at = id; at && !kept.has(at); at = parent.get(at)) kept.add(at);
  };
  for (const process of processes) {
    for (const vma of process.vmas) [vma.anon_vma, ...vma.chain].forEach(keep);
  }
  return { ...part, processes, anonVmas: part.anonVmas.filter((one) => kept.has(one.id)) };
}

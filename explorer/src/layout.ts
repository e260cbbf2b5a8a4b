// SPDX-License-Identifier: GPL-2.0-only
// Where everything stands: fixed for all moments, so that only what changed moves.

import type { Member } from "./family";
import { family } from "./family";
import type { Plan, Row } from "./grouping";
import { rowsOf } from "./grouping";
import type { History } from "./state";
import type { AnonVma } from "./types";
import { PAGE, clipped, count } from "./words";

export const SIZE = {
  edge: 16,
  gutter: 112, // addresses, left of the processes
  between: 14, // between two processes
  badge: 62, // numbers of a walk, right of the processes
  char: 6.7, // a letter of a row's label
  column: 54, // an anon_vma
  row: 32, // a VMA's line
  level: 18, // a generation of anon_vmas
  cell: 26, // a page, across
  line: 22, // a line of pages, down
  gap: 20, // addresses that no VMA ever has
  counter: 20, // a line of counters
  head: 60, // names above the rows
} as const;

/** A VMA's width, and how many pages stand side by side in it. */
export interface Box {
  width: number;
  across: number;
}

const WIDE: Box = { width: 118, across: 4 };
const NARROW: Box = { width: 98, across: 3 };
const MANY_PROCESSES = 5;

const MOST_PAGES = 24;
const LONGEST_NAME = 18;

export interface Column {
  name: string;
  x: number;
  width: number;
  lanes: number;
}

export interface Band {
  start: number;
  end: number;
  top: number;
  bottom: number;
  /** Where its first line of pages is. */
  pages: number;
  /** No VMA ever has these addresses. */
  gap: boolean;
  /** The place of each page that is shown. */
  slots: ReadonlyMap<number, number>;
  /** Not all pages that ever have something have a place. */
  cut: boolean;
  /** All of the band's pages are shown, those without anything as an outline. */
  allPages: boolean;
}

export interface Line extends Member {
  x: number;
  top: number;
}

export interface Place {
  y: number;
  top: number;
  bottom: number;
}

export interface Layout {
  width: number;
  height: number;
  box: Box;
  columns: ReadonlyMap<string, Column>;
  bands: readonly Band[];
  lines: ReadonlyMap<string, Line>;
  order: readonly string[];
  /** Top and bottom of the rows, and right end of the processes. */
  top: number;
  bottom: number;
  right: number;
  /** Right end of the rows' labels; the anon_vmas follow. */
  labels: number;
  counters: readonly Counter[];
  place(row: Row): Place | null;
  bandAt(address: number): Band | null;
}

export interface Counter {
  name: string;
  of(one: AnonVma): number;
  says: string;
}

const COUNTERS: readonly (Counter & { always: boolean })[] = [
  { name: "refs", of: (one) => one.refcount, says: "references: who keeps the anon_vma alive", always: true },
  { name: "children", of: (one) => one.num_children, says: "anon_vmas whose parent it is; a root counts itself", always: false },
  { name: "own VMAs", of: (one) => one.num_active_vmas, says: "VMAs that have it as their own", always: false },
  { name: "degree", of: (one) => one.degree, says: "users and children in one counter, v3.19 to v5.19", always: false },
  { name: "freed VMAs", of: (one) => one.tree.filter((id) => id === "?").length, says: "VMAs in its tree that have been freed", always: false },
];

function countersOf(all: History): Counter[] {
  const used = COUNTERS.filter((one) => one.always || all.anonVmas.some((anonVma) => one.of(anonVma) !== 0));
  return used.length > 1 ? used : COUNTERS.slice(0, 3);
}

/** The rows of all versions of all processes. */
type Rows = { process: string; rows: readonly Row[] }[];

function allRows(all: History, planned: Plan | null): Rows {
  return all.processes.map((process) => ({ process: process.name, rows: rowsOf(process, planned) }));
}

/** Rows that need a second lane: VMAs not in the address space, where another one is. */
export function overlays(rows: readonly Row[]): Set<string> {
  const live = rows.filter((row) => !row.vmas.some((vma) => vma.building));
  const found = new Set<string>();
  for (const row of rows) {
    if (live.includes(row)) continue;
    if (live.some((other) => other.start < row.end && row.start < other.end)) found.add(row.id);
  }
  return found;
}

function columnsOf(all: Rows, box: Box): Map<string, Column> {
  const lanes = new Map<string, number>();
  for (const { process, rows } of all) {
    const building = rows.some((row) => row.vmas.some((vma) => vma.building));
    lanes.set(process, Math.max(lanes.get(process) ?? 1, building && overlays(rows).size > 0 ? 2 : 1));
  }
  const columns = new Map<string, Column>();
  let x: number = SIZE.edge + SIZE.gutter;
  for (const [name, number] of lanes) {
    const width = number * box.width + (number - 1) * 6;
    columns.set(name, { name, x, width, lanes: number });
    x += width + SIZE.between;
  }
  return columns;
}

/** Gives each id the lowest number that none of those it ever meets has. */
export function numbered(meetings: readonly (readonly string[])[]): Map<string, number> {
  const met = new Map<string, Set<string>>();
  for (const ids of meetings) {
    for (const id of ids) {
      const others = met.get(id) ?? new Set();
      ids.forEach((other) => others.add(other));
      met.set(id, others);
    }
  }
  const numbers = new Map<string, number>();
  for (const [id, others] of met) {
    const taken = new Set([...others].map((other) => numbers.get(other)));
    let number = 0;
    while (taken.has(number)) number += 1;
    numbers.set(id, number);
  }
  return numbers;
}

/** For each start address and process: the sub-row of each VMA that ever starts there. */
class SubRows {
  private readonly byStart = new Map<number, Map<string, Map<string, number>>>();
  private readonly offsets = new Map<number, Map<string, number>>();

  constructor(all: Rows, names: readonly string[]) {
    const meetings = new Map<number, Map<string, string[][]>>();
    for (const { process, rows } of all) {
      const here = new Map<number, string[]>();
      for (const row of rows) here.set(row.start, [...(here.get(row.start) ?? []), row.id]);
      for (const [start, ids] of here) {
        const at = meetings.get(start) ?? new Map<string, string[][]>();
        meetings.set(start, at.set(process, [...(at.get(process) ?? []), ids]));
      }
    }
    for (const [start, at] of meetings) {
      const numbers = new Map([...at].map(([process, met]) => [process, numbered(met)] as const));
      this.byStart.set(start, numbers);
      const offset = new Map<string, number>();
      let rows = 0;
      for (const name of names) {
        const own = numbers.get(name);
        if (!own) continue;
        offset.set(name, rows);
        rows += 1 + Math.max(...own.values());
      }
      this.offsets.set(start, offset.set("", rows));
    }
  }

  count(start: number): number {
    return this.offsets.get(start)?.get("") ?? 0;
  }

  of(row: Row): number | null {
    const offset = this.offsets.get(row.start)?.get(row.process);
    const number = this.byStart.get(row.start)?.get(row.process)?.get(row.id);
    return offset === undefined || number === undefined ? null : offset + number;
  }
}

interface Segment {
  start: number;
  end: number;
  covered: boolean;
  /** A VMA that names a file starts here. */
  file: boolean;
}

export function segments(all: Rows): Segment[] {
  const edges = new Map<number, number>();
  const files = new Set<number>();
  const seen = new Set<string>();
  for (const { rows } of all) {
    for (const row of rows) {
      if (row.vmas[0]?.file) files.add(row.start);
      const key = `${row.start}-${row.end}`;
      if (seen.has(key)) continue;
      seen.add(key);
      edges.set(row.start, (edges.get(row.start) ?? 0) + 1);
      edges.set(row.end, (edges.get(row.end) ?? 0) - 1);
    }
  }
  const sorted = [...edges.keys()].sort((a, b) => a - b);
  let depth = 0;
  return sorted.slice(0, -1).map((start, index) => {
    depth += edges.get(start) ?? 0;
    return { start, end: sorted[index + 1] ?? start, covered: depth > 0, file: files.has(start) };
  });
}

/** All pages that ever have a folio, a swap entry or a guard. */
function usedPages(all: History): number[] {
  const found = new Set<number>();
  for (const folio of all.folios) for (const pte of folio.ptes) found.add(pte.address);
  for (const slot of all.swap) for (const pte of slot.ptes) found.add(pte.address);
  for (const guard of all.guards) found.add(guard.address);
  return [...found].sort((a, b) => a - b);
}

type Slots = Pick<Band, "slots" | "allPages" | "cut">;

const NO_SLOTS: Slots = { slots: new Map(), allPages: false, cut: false };

function slotsOf(segment: Segment, used: readonly number[]): Slots {
  const number = (segment.end - segment.start) / PAGE;
  const allPages = number <= 8;
  const wanted = allPages
    ? Array.from({ length: number }, (_, index) => segment.start + index * PAGE)
    : used.slice(firstAtLeast(used, segment.start), firstAtLeast(used, segment.end));
  const shown = wanted.slice(0, MOST_PAGES);
  return { slots: new Map(shown.map((address, index) => [address, index])), allPages, cut: wanted.length > shown.length };
}

function firstAtLeast(sorted: readonly number[], value: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sorted[middle] ?? Infinity) < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

function bandsOf(all: Rows, sub: SubRows, used: readonly number[] | null, from: number, box: Box): Band[] {
  let top = from;
  return segments(all).map((segment) => {
    const { start, end, covered, file } = segment;
    if (!covered) {
      top += SIZE.gap;
      return { start, end, top: top - SIZE.gap, bottom: top, pages: top, gap: true, ...NO_SLOTS };
    }
    const page = used ? slotsOf(segment, used) : NO_SLOTS;
    const { slots } = page;
    const rows = sub.count(start);
    const label = rows > 0 ? 22 + (file ? 15 : 0) : 4;
    const height = Math.max(rows * SIZE.row, label + Math.ceil(slots.size / box.across) * SIZE.line + (slots.size ? 6 : 0), 18);
    top += height;
    return { start, end, top: top - height, bottom: top, pages: top - height + label, gap: false, ...page };
  });
}

function linesOf(order: readonly Member[], from: number, level: number): Map<string, Line> {
  return new Map(
    order.map(({ id, depth }, index) => [
      id,
      { id, depth, x: from + SIZE.column * index + SIZE.column / 2, top: SIZE.edge + level * depth + 8 },
    ]),
  );
}

export const rowLabel = (process: string, row: Row): string =>
  `${clipped(process, LONGEST_NAME)} ${row.vmas.length > 1 ? `\u00d7${count(row.vmas.length)}` : row.id}`;

function longestLabel(all: Rows): number {
  let most = 9;
  for (const { process, rows } of all) for (const row of rows) most = Math.max(most, rowLabel(process, row).length);
  return most;
}

/** Those that were freed before the first moment, and are still named, stand at the end. */
function withFreed(order: Member[], all: History): Member[] {
  const found = new Set(order.map((one) => one.id));
  for (const process of all.processes) {
    for (const vma of process.vmas) {
      for (const id of [vma.anon_vma, ...vma.chain]) {
        if (id === null || found.has(id)) continue;
        found.add(id);
        order.push({ id, depth: 0 });
      }
    }
  }
  return order;
}

export interface Shown {
  planned: Plan | null;
  folios: boolean;
}

export function layout(all: History, { planned, folios }: Shown): Layout {
  const rows = allRows(all, planned);
  const box = new Set(rows.map((one) => one.process)).size < MANY_PROCESSES ? WIDE : NARROW;
  const columns = columnsOf(rows, box);
  const order = withFreed(family(all.anonVmas), all);
  const deepest = Math.max(0, ...order.map((one) => one.depth));
  const level = Math.min(SIZE.level, 180 / Math.max(1, deepest));
  const top = SIZE.edge + Math.round(level * deepest) + SIZE.head;
  const sub = new SubRows(rows, [...columns.keys()]);
  const bands = bandsOf(rows, sub, folios ? usedPages(all) : null, top, box);
  const bottom = bands.at(-1)?.bottom ?? top + SIZE.row;
  const last = [...columns.values()].at(-1);
  const right = last ? last.x + last.width : SIZE.edge + SIZE.gutter;
  const labels = right + SIZE.badge + Math.round(SIZE.char * longestLabel(rows));
  const counters = countersOf(all);
  const ends = bands.map((band) => band.end);
  const byStart = new Map(bands.map((band) => [band.start, band]));
  const byEnd = new Map(bands.map((band) => [band.end, band]));
  return {
    width: labels + 14 + SIZE.column * order.length + SIZE.edge,
    height: bottom + 14 + SIZE.counter * counters.length + SIZE.edge,
    box,
    columns,
    bands,
    lines: linesOf(order, labels + 14, level),
    order: order.map((one) => one.id),
    top,
    bottom,
    right,
    labels,
    counters,
    place(row) {
      const first = byStart.get(row.start);
      const number = sub.of(row);
      if (!first || number === null) return null;
      const y = first.top + number * SIZE.row + SIZE.row / 2;
      return { y, top: first.top, bottom: byEnd.get(row.end)?.bottom ?? first.bottom };
    },
    bandAt(address) {
      const band = bands[firstAtLeast(ends, address + 1)];
      return band && band.start <= address ? band : null;
    },
  };
}

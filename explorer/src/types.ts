// SPDX-License-Identifier: GPL-2.0-only
// The document that the page is given, as rmaplab explore writes it.

export interface Document {
  rmaplab: string;
  kind: "explore";
  title: string;
  source: "scenario" | "counterexample" | "snapshot" | "trace" | "tour";
  chapters: Chapter[];
  invariants: Invariant[];
}

export interface Invariant {
  id: string;
  statement: string;
  source: string;
}

export interface Chapter {
  title: string;
  text: string[];
  tracks: Track[];
}

export interface Track {
  series: string;
  kernel: string | null;
  calls: string[];
  moments: Moment[];
}

export interface Violation {
  id: string;
  statement: string;
  detail: string;
}

export interface Moment {
  call: number;
  inner: number;
  text: string;
  verb: string | null;
  process: string | null;
  fail: string | null;
  errno: string | null;
  note: string | null;
  words: string[];
  violated: Violation[];
  patch: Patch;
  answers: Answers | null;
}

export interface Patch {
  processes?: Record<string, Process | null>;
  anon_vmas?: Record<string, AnonVma | null>;
  folios?: Record<string, Folio | null>;
  swap?: Record<string, Swap | null>;
  guards?: Guard[];
  ksm?: Ksm[];
  slab?: Slab;
  locks?: string[];
}

export interface Process {
  name: string;
  mm: string;
  vmas: Vma[];
  building?: boolean;
}

export interface Vma {
  id: string;
  start: number;
  end: number;
  pgoff: number;
  anon_pgoff: number;
  flags: string;
  file: string | null;
  anon_vma: string | null;
  chain: string[];
  building?: boolean;
}

export interface AnonVma {
  id: string;
  root: string;
  parent: string;
  refcount: number;
  num_children: number;
  num_active_vmas: number;
  degree: number;
  tree: string[];
}

export interface Pte {
  mm: string;
  address: number;
  writable: boolean;
  page: number;
  pages: number;
}

export interface Folio {
  id: string;
  mapping: string | null;
  index: number;
  mapcount: number;
  exclusive: boolean;
  ptes: Pte[];
  order: number;
  pins: number;
  ksm: string | null;
}

export interface SwapPte {
  mm: string;
  address: number;
  exclusive: boolean;
}

export interface Swap {
  id: string;
  count: number;
  folio: string | null;
  ptes: SwapPte[];
}

export interface Guard {
  mm: string;
  address: number;
}

export interface Ksm {
  content: string;
  items: { mm: string; address: number; anon_vma: string }[];
}

export interface Slab {
  anon_vma: number;
  anon_vma_chain: number;
  bytes: number;
}

export type Answers = Record<string, Answer>;

export interface Answer {
  title: string;
  lines: string[];
  walk?: { vma: string; process: string; address: number; maps: boolean; why: string }[];
  holds?: { what: string; refs: number }[];
  reuse?: { may: boolean; why: string };
  chain?: { anon_vma: string; own: boolean; why: string }[];
  merge?: { neighbour: string; side: "before" | "after"; allowed: boolean; why: string[] }[];
}

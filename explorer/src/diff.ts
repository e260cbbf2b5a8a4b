// SPDX-License-Identifier: GPL-2.0-only
// What differs between two states: new, changed and gone objects by id.

import type { State } from "./state";
import { vmasOf } from "./state";
import type { AnonVma, Folio, Vma } from "./types";

export type Change = "new" | "changed";

export interface Diff {
  processes: ReadonlySet<string>;
  vmas: ReadonlyMap<string, Change>;
  anonVmas: ReadonlyMap<string, Change>;
  folios: ReadonlyMap<string, Change>;
}

export const NOTHING: Diff = { processes: new Set(), vmas: new Map(), anonVmas: new Map(), folios: new Map() };

const sameList = (a: readonly unknown[], b: readonly unknown[]): boolean =>
  a.length === b.length && a.every((one, index) => one === b[index]);

/** Whether a VMA itself is as it was; its links have marks of their own. */
function sameVma(a: Vma, b: Vma): boolean {
  return (
    a === b ||
    (a.start === b.start && a.end === b.end && a.pgoff === b.pgoff && a.anon_pgoff === b.anon_pgoff &&
      a.flags === b.flags && a.file === b.file && a.anon_vma === b.anon_vma && sameList(a.chain, b.chain) &&
      !a.building === !b.building)
  );
}

function sameAnonVma(a: AnonVma, b: AnonVma): boolean {
  return (
    a === b ||
    (a.root === b.root && a.parent === b.parent && a.refcount === b.refcount && a.num_children === b.num_children &&
      a.num_active_vmas === b.num_active_vmas && a.degree === b.degree && sameList(a.tree, b.tree))
  );
}

const sameFolio = (a: Folio, b: Folio): boolean => a === b || JSON.stringify(a) === JSON.stringify(b);

function changes<T>(
  now: ReadonlyMap<string, T>,
  before: ReadonlyMap<string, T>,
  same: (a: T, b: T) => boolean,
): Map<string, Change> {
  const found = new Map<string, Change>();
  if (now === before) return found;
  for (const [id, one] of now) {
    const old = before.get(id);
    if (old === undefined) found.set(id, "new");
    else if (!same(one, old)) found.set(id, "changed");
  }
  return found;
}

export function diff(now: State, before: State | null): Diff {
  if (!before) return NOTHING;
  const same = now.processes === before.processes;
  return {
    processes: new Set([...now.processes.keys()].filter((name) => !before.processes.has(name))),
    vmas: same
      ? new Map()
      : changes(vmasOf(now), vmasOf(before), (a, b) => a.process.name === b.process.name && sameVma(a.vma, b.vma)),
    anonVmas: changes(now.anonVmas, before.anonVmas, sameAnonVma),
    folios: changes(now.folios, before.folios, sameFolio),
  };
}

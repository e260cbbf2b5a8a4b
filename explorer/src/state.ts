// SPDX-License-Identifier: GPL-2.0-only
// States from patches: what there is at every moment of a track, sharing all that did not change.

import type { AnonVma, Folio, Guard, Ksm, Moment, Patch, Process, Slab, Swap, Track, Vma } from "./types";

export interface State {
  processes: ReadonlyMap<string, Process>;
  anonVmas: ReadonlyMap<string, AnonVma>;
  folios: ReadonlyMap<string, Folio>;
  swap: ReadonlyMap<string, Swap>;
  guards: readonly Guard[];
  ksm: readonly Ksm[];
  slab: Slab | null;
  locks: readonly string[];
}

export const EMPTY: State = {
  processes: new Map(),
  anonVmas: new Map(),
  folios: new Map(),
  swap: new Map(),
  guards: [],
  ksm: [],
  slab: null,
  locks: [],
};

function patched<T>(old: ReadonlyMap<string, T>, patch: Record<string, T | null> | undefined): ReadonlyMap<string, T> {
  if (!patch) return old;
  const next = new Map(old);
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) next.delete(name);
    else next.set(name, value);
  }
  return next;
}

export function apply(state: State, patch: Patch): State {
  return {
    processes: patched(state.processes, patch.processes),
    anonVmas: patched(state.anonVmas, patch.anon_vmas),
    folios: patched(state.folios, patch.folios),
    swap: patched(state.swap, patch.swap),
    guards: patch.guards ?? state.guards,
    ksm: patch.ksm ?? state.ksm,
    slab: patch.slab ?? state.slab,
    locks: patch.locks ?? state.locks,
  };
}

export function states(moments: readonly Moment[]): State[] {
  let state = EMPTY;
  return moments.map((moment) => (state = apply(state, moment.patch)));
}

/** Every version of every object that a track ever has, in order of appearance. */
export interface History {
  processes: Process[];
  anonVmas: AnonVma[];
  folios: Folio[];
  swap: Swap[];
  guards: Guard[];
}

function present<T>(record: Record<string, T | null> | undefined): T[] {
  return Object.values(record ?? {}).filter((one): one is T & {} => one !== null) as T[];
}

export function history(track: Track): History {
  const patches = track.moments.map((moment) => moment.patch);
  return {
    processes: patches.flatMap((patch) => present(patch.processes)),
    anonVmas: patches.flatMap((patch) => present(patch.anon_vmas)),
    folios: patches.flatMap((patch) => present(patch.folios)),
    swap: patches.flatMap((patch) => present(patch.swap)),
    guards: patches.flatMap((patch) => patch.guards ?? []),
  };
}

/** The processes that own an address space: of tasks that share one, only the first. */
export function owners(state: State): Map<string, Process> {
  const found = new Map<string, Process>();
  for (const process of state.processes.values()) {
    if (!found.has(process.mm)) found.set(process.mm, process);
  }
  return found;
}

export type Owned = { process: Process; vma: Vma };

const owned = new WeakMap<State, Map<string, Owned>>();

/** All VMAs by id, with their process. */
export function vmasOf(state: State): ReadonlyMap<string, Owned> {
  const known = owned.get(state);
  if (known) return known;
  const found = new Map<string, Owned>();
  for (const process of owners(state).values()) {
    for (const vma of process.vmas) found.set(vma.id, { process, vma });
  }
  owned.set(state, found);
  return found;
}

export interface Counts {
  vmas: number;
  anonVmas: number;
  avcs: number;
  folios: number;
  longest: number;
}

export function counts(state: State): Counts {
  const found = { vmas: 0, anonVmas: state.anonVmas.size, avcs: 0, folios: state.folios.size, longest: 0 };
  for (const process of owners(state).values()) {
    found.vmas += process.vmas.length;
    for (const vma of process.vmas) {
      found.avcs += vma.chain.length;
      found.longest = Math.max(found.longest, vma.chain.length);
    }
  }
  return found;
}

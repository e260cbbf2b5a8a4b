// SPDX-License-Identifier: GPL-2.0-only
// What a selection highlights in the drawing: the walk of a folio, the relatives of an anon_vma, a VMA's chain.

import type { State } from "./state";
import { vmasOf } from "./state";
import type { Answer } from "./types";

export interface Marks {
  selected: string | null;
  /** VMAs that the walk visits: when, and whether they map the folio. */
  visits: ReadonlyMap<string, { number: number; maps: boolean; why: string }>;
  vmas: ReadonlySet<string>;
  /** anon_vmas whose crossings with these VMAs are marked. */
  lines: ReadonlySet<string>;
  /** anon_vmas, with what they are to the selected object. */
  anonVmas: ReadonlyMap<string, string>;
}

export const UNMARKED: Marks = { selected: null, visits: new Map(), vmas: new Set(), lines: new Set(), anonVmas: new Map() };

function ofFolio(id: string, state: State, answer: Answer | null): Marks {
  const mapping = state.folios.get(id)?.mapping;
  const visits = new Map(
    (answer?.walk ?? []).map(({ vma, maps, why }, index) => [vma, { number: index + 1, maps, why }] as const),
  );
  return {
    selected: id,
    visits,
    vmas: new Set(visits.keys()),
    lines: new Set(mapping ? [mapping] : []),
    anonVmas: new Map(mapping ? [[mapping, "named"]] : []),
  };
}

function ofAnonVma(id: string, state: State): Marks {
  const anonVmas = new Map<string, string>();
  for (const one of state.anonVmas.values()) if (one.parent === id && one.id !== id) anonVmas.set(one.id, "child");
  const self = state.anonVmas.get(id);
  if (self && self.root !== id) anonVmas.set(self.root, "root");
  if (self && self.parent !== id) anonVmas.set(self.parent, "parent");
  anonVmas.set(id, "");
  return { ...UNMARKED, selected: id, vmas: new Set(self?.tree), lines: new Set([id]), anonVmas };
}

function ofVma(id: string, state: State): Marks {
  const vma = vmasOf(state).get(id)?.vma;
  const anonVmas = new Map<string, string>((vma?.chain ?? []).map((one, index) => [one, `link ${index + 1}`]));
  if (vma?.anon_vma) anonVmas.set(vma.anon_vma, "own");
  return { ...UNMARKED, selected: id, vmas: new Set([id]), lines: new Set(anonVmas.keys()), anonVmas };
}

export function marks(id: string | null, state: State, answer: Answer | null): Marks {
  if (id === null) return UNMARKED;
  if (state.folios.has(id)) return ofFolio(id, state, answer);
  if (state.anonVmas.has(id)) return ofAnonVma(id, state);
  return ofVma(id, state);
}

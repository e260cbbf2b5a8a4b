// SPDX-License-Identifier: GPL-2.0-only
// What stands where a VMA's line crosses the line of an anon_vma.

import type { State } from "./state";
import type { AnonVma, Vma } from "./types";

/**
 * own: on the list, in the tree, and the VMA's own; linked: the same, but another's;
 * pending: on the list, not in the tree; broken: own and not on the list, or gone;
 * stray: in the tree, not on the list.
 */
export type Kind = "own" | "linked" | "pending" | "broken" | "stray";

export interface Crossing {
  anonVma: string;
  kind: Kind;
  own: boolean;
  /** Position on the VMA's list, head first = 1. */
  chain: number | null;
  /** Position in the tree's visiting order, from 1. */
  tree: number | null;
  says: string;
}

const positions = new WeakMap<AnonVma, Map<string, number>>();

/** The place of each VMA in an anon_vma's visiting order, from 1. */
export function visiting(anonVma: AnonVma): ReadonlyMap<string, number> {
  let found = positions.get(anonVma);
  if (!found) {
    found = new Map(anonVma.tree.map((id, index) => [id, index + 1] as const).reverse());
    positions.set(anonVma, found);
  }
  return found;
}

function kindOf(exists: boolean, own: boolean, chain: number | null, tree: number | null): Kind {
  if (chain === null) return own || !exists ? "broken" : "stray";
  if (!exists) return "broken";
  if (tree === null) return "pending";
  return own ? "own" : "linked";
}

const SAYS: Record<Kind, string> = {
  own: "its own anon_vma: new pages name it",
  linked: "linked: pages that name it may be mapped here",
  pending: "on the VMA's list, but not in the anon_vma's tree: a walk does not find this VMA",
  broken: "broken: the VMA points to it without being linked to it",
  stray: "broken: in the anon_vma's tree, but not on the VMA's list",
};

/** The crossings of one VMA with the given anon_vmas, in their order. */
export function crossings(vma: Vma, state: State, ids: readonly string[]): Crossing[] {
  const found: Crossing[] = [];
  for (const anonVma of ids) {
    const one = state.anonVmas.get(anonVma);
    const own = vma.anon_vma === anonVma;
    const at = vma.chain.indexOf(anonVma);
    const chain = at < 0 ? null : at + 1;
    const tree = one ? (visiting(one).get(vma.id) ?? null) : null;
    if (!own && chain === null && tree === null) continue;
    const kind = kindOf(one !== undefined, own, chain, tree);
    const says = one ? SAYS[kind] : "broken: this anon_vma has been freed";
    found.push({ anonVma, kind, own, chain, tree, says });
  }
  return found;
}

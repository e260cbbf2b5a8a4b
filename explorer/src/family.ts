// SPDX-License-Identifier: GPL-2.0-only
// The order of anon_vmas in a drawing: parents before their children, whole families together.

import type { AnonVma } from "./types";

export interface Member {
  id: string;
  depth: number;
}

/** Each id's parent for the drawing: the last one it ever had other than itself, null for a root. */
export function parents(versions: Iterable<AnonVma>): Map<string, string | null> {
  const found = new Map<string, string | null>();
  for (const one of versions) {
    if (one.parent !== one.id) found.set(one.id, one.parent);
    else if (!found.has(one.id)) found.set(one.id, null);
  }
  return found;
}

function isBelow(parent: ReadonlyMap<string, string | null>, id: string, top: string): boolean {
  const seen = new Set<string>();
  for (let at: string | null | undefined = id; at && !seen.has(at); at = parent.get(at)) {
    if (at === top) return true;
    seen.add(at);
  }
  return false;
}

function add(children: Map<string, string[]>, above: string, id: string): void {
  const found = children.get(above);
  if (found) found.push(id);
  else children.set(above, [id]);
}

export function family(versions: Iterable<AnonVma>): Member[] {
  const parent = parents(versions);
  const children = new Map<string, string[]>();
  const tops: string[] = [];
  for (const [id, above] of parent) {
    if (above === null || !parent.has(above) || isBelow(parent, above, id)) tops.push(id);
    else add(children, above, id);
  }
  const waiting = tops.map((id) => ({ id, depth: 0 })).reverse();
  const order: Member[] = [];
  for (let one = waiting.pop(); one; one = waiting.pop()) {
    order.push(one);
    const { depth } = one;
    waiting.push(...(children.get(one.id) ?? []).map((id) => ({ id, depth: depth + 1 })).reverse());
  }
  return order;
}

// SPDX-License-Identifier: GPL-2.0-only
// The symbol at a crossing of a VMA with an anon_vma; the legend shows the same ones.

import type { Crossing, Kind } from "./links";
import { classes, tag, text, title } from "./svg";

export interface Look {
  changed: boolean;
  halo: boolean;
  chain: boolean;
  tree: boolean;
  says: string;
}

export const PLAIN: Look = { changed: false, halo: false, chain: false, tree: false, says: "" };

export function titled(vma: string, one: Crossing): string {
  const chain = one.chain === null ? "" : `; number ${one.chain} on the VMA's list`;
  const tree = one.tree === null ? "" : `; number ${one.tree} in the tree's visiting order`;
  return `${vma} and ${one.anonVma}: ${one.says}${chain}${tree}`;
}

const cross = (x: number, y: number): string => tag("path", { d: `M${x - 5},${y - 5} l10,10 M${x + 5},${y - 5} l-10,10` });

const SHAPES: Record<Kind, (x: number, y: number, own: boolean) => string> = {
  own: (x, y) => tag("circle", { cx: x, cy: y, r: 8 }),
  linked: (x, y) => tag("circle", { cx: x, cy: y, r: 7 }),
  pending: (x, y, own) => tag("circle", { cx: x, cy: y, r: 7 }) + (own ? tag("circle", { class: "dot", cx: x, cy: y, r: 2.5 }) : ""),
  broken: (x, y) => tag("circle", { cx: x, cy: y, r: 8 }) + cross(x, y),
  stray: (x, y) => tag("path", { d: `M${x - 9},${y} l9,-9 9,9 -9,9 z` }),
};

export function symbol(one: Crossing, x: number, y: number, look: Look): string {
  const halo = look.halo ? tag("circle", { class: "halo", cx: x, cy: y, r: 13 }) : "";
  const shape = tag("g", { class: classes("link", one.kind, look.changed && "changed") }, SHAPES[one.kind](x, y, one.own));
  const star = look.changed ? text(x + 12, y - 6, "✱", { class: "star", "text-anchor": "middle" }) : "";
  const chain = look.chain && one.chain !== null ? text(x - (look.halo ? 15 : 11), y - 5, String(one.chain), { class: "chain-number", "text-anchor": "end" }) : "";
  const tree = look.tree && one.tree !== null ? text(x + 10, y + 15, `↓${one.tree}`, { class: "tree-number" }) : "";
  return tag("g", {}, title(look.says) + halo + shape + star + chain + tree);
}

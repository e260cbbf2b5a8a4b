// SPDX-License-Identifier: GPL-2.0-only
// The line under the drawing that shows the real symbols.

import { PLAIN, symbol } from "./crossing";
import type { Crossing, Kind } from "./links";
import { paint } from "./paint";
import { escape, tag, text } from "./svg";

export interface Shown {
  chain: boolean;
  tree: boolean;
  folios: boolean;
  /** What can occur in this chapter. */
  occurs: { pending: boolean; broken: boolean; swap: boolean; guards: boolean };
}

const WIDTH = 30;
const HEIGHT = 24;

const picture = (content: string, width = WIDTH): string =>
  tag("svg", { class: "drawing symbol", width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" }, content);

const item = (content: string, says: string): string => tag("li", {}, `${content}<span>${escape(says)}</span>`);

const crossing = (kind: Kind, chain: number | null = null, tree: number | null = null): Crossing => ({
  anonVma: "", kind, own: kind === "own", chain, tree, says: "",
});

const link = (kind: Kind): string => picture(symbol(crossing(kind), 15, 12, PLAIN));

const square = (look: string, fill: Record<string, string>, content = ""): string =>
  picture(tag("g", { class: `page ${look}` }, tag("rect", { x: 3, y: 3, width: 23, height: 18, rx: 2, ...fill }) + content));

function folios({ swap, guards }: Shown["occurs"]): string[] {
  const ink = paint("legend");
  const number = text(14.5, 16.5, "2", { "text-anchor": "middle" });
  const lozenge = tag("g", { class: "page swap" }, tag("path", { d: "M3,12 l11.5,-9.5 11.5,9.5 -11.5,9.5 z" }));
  return [
    item(picture(ink.defs(1) + tag("rect", { x: 3, y: 10, width: 24, height: 4, ...ink.fill(0) })), "a folio has the colour of the anon_vma it names"),
    item(square("folio exclusive on-fill-0", ink.fill(0), number), "exclusive to one process"),
    item(square("folio shared on-fill-0", ink.fill(0), number), "may be shared"),
    item(square("absent", {}), "no page yet"),
    ...(swap ? [item(picture(lozenge), "swapped out")] : []),
    ...(guards ? [item(square("guard", { fill: "url(#legend-guard)" }), "guard page")] : []),
  ];
}

export function legend({ chain, tree, folios: pages, occurs }: Shown): string {
  const box = picture(tag("g", { class: "vma" }, tag("rect", { x: 2, y: 3, width: 24, height: 18, rx: 4 }) + tag("rect", { class: "port", x: 22, y: 8, width: 8, height: 8 })));
  const items = [
    item(box, "VMA (2p: 2 pages)"),
    item(link("own"), "its own anon_vma: new pages name it"),
    item(link("linked"), "AVC: linked to another one"),
    ...(occurs.pending ? [item(link("pending"), "on the list, not in the tree (yet)")] : []),
    ...(occurs.broken ? [item(link("broken"), "own, but not linked: broken"), item(link("stray"), "in the tree, not on the list: broken")] : []),
    ...(chain ? [item(picture(symbol(crossing("linked", 1), 21, 13, { ...PLAIN, chain: true })), "place on the VMA's list")] : []),
    ...(tree ? [item(picture(symbol(crossing("linked", null, 1), 8, 9, { ...PLAIN, tree: true })), "order in which a walk visits")] : []),
    ...(pages ? folios(occurs) : []),
    item(picture(text(14, 18, "✱", { class: "star", "text-anchor": "middle" })), "new or changed in this step"),
    item(picture(tag("g", { class: "vma ghost" }, tag("rect", { x: 2, y: 3, width: 24, height: 18, rx: 4 }))), "just gone"),
  ];
  return tag("ul", { class: "legend-items" }, items.join(""));
}

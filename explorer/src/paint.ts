// SPDX-License-Identifier: GPL-2.0-only
// The colours and patterns that tell anon_vmas apart.

import { tag } from "./svg";

const COLOURS = 6;
const SHAPES = [
  "",
  "M-2,10 L10,-2 M-2,4 L4,-2 M4,10 L10,4",
  "M2,4 h4 M4,2 v4",
  "M-2,-2 L10,10 M-2,10 L10,-2",
];

export interface Paint {
  fill(index: number): Record<string, string>;
  /** The patterns that the first so many anon_vmas need, and the hatching of guards. */
  defs(number: number): string;
}

function pattern(id: string, colour: string, shape: string): string {
  const attributes = { id, width: 8, height: 8, patternUnits: "userSpaceOnUse" };
  const ground = tag("rect", { width: 8, height: 8, class: colour });
  return tag("pattern", attributes, ground + tag("path", { d: shape, class: "pattern" }));
}

/** Paint for one drawing; the prefix keeps the ids of two drawings apart. */
export function paint(prefix: string): Paint {
  const id = (index: number): string => `${prefix}-paint-${index}`;
  const shape = (index: number): number => Math.floor(index / COLOURS) % SHAPES.length;
  return {
    fill: (index) =>
      shape(index) === 0
        ? { class: `fill-${index % COLOURS}` }
        : { fill: `url(#${id(index % (COLOURS * SHAPES.length))})`, class: "patterned" },
    defs(number) {
      const used = Array.from({ length: Math.min(number, COLOURS * SHAPES.length) }, (_, index) => index);
      const patterns = used
        .filter((index) => shape(index) > 0)
        .map((index) => pattern(id(index), `fill-${index % COLOURS}`, SHAPES[shape(index)] ?? ""));
      const hatch = pattern(`${prefix}-guard`, "paper", "M-2,6 L6,-2 M2,10 L10,2");
      return tag("defs", {}, hatch + patterns.join(""));
    },
  };
}

// SPDX-License-Identifier: GPL-2.0-only
// The current drawing as an SVG file of its own, with its styles written into its elements.

import { escape, tag, text } from "./svg";

const PROPERTIES = [
  "fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-family", "font-size", "font-weight",
  "font-style", "paint-order", "stroke-linecap", "stroke-linejoin",
] as const;

const INTERACTIVE = ["class", "role", "tabindex", "data-select", "data-expand", "aria-pressed", "aria-hidden"];

function inlined(drawn: SVGSVGElement): SVGSVGElement {
  const copy = drawn.cloneNode(true) as SVGSVGElement;
  const originals = [drawn, ...drawn.querySelectorAll("*")];
  const copies = [copy, ...copy.querySelectorAll("*")];
  originals.forEach((original, index) => {
    const target = copies[index];
    if (!target || original.tagName === "title") return;
    const style = getComputedStyle(original);
    for (const property of PROPERTIES) target.setAttribute(property, style.getPropertyValue(property));
    INTERACTIVE.forEach((name) => target.removeAttribute(name));
  });
  return copy;
}

export interface Panel {
  title: string;
  drawing: SVGSVGElement;
}

/** The drawings side by side under a heading, as the text of an SVG file. */
export function standalone(heading: string, panels: readonly Panel[]): string {
  const root = getComputedStyle(document.documentElement);
  const ink = root.getPropertyValue("--ink");
  const font = { fill: ink, "font-family": "sans-serif", "font-size": 14 };
  let x = 0;
  const drawn = panels.map(({ title, drawing }) => {
    const copy = inlined(drawing);
    const at = x;
    copy.setAttribute("x", String(at));
    copy.setAttribute("y", "64");
    x += drawing.width.baseVal.value + 16;
    return text(at + 16, 56, title, { ...font, "font-weight": "bold" }) + new XMLSerializer().serializeToString(copy);
  });
  const height = 72 + Math.max(0, ...panels.map((panel) => panel.drawing.height.baseVal.value));
  const width = Math.max(x, 32 + heading.length * 8);
  const ground = tag("rect", { width, height, fill: root.getPropertyValue("--paper") });
  return tag(
    "svg",
    { xmlns: "http://www.w3.org/2000/svg", width, height, viewBox: `0 0 ${width} ${height}` },
    tag("title", {}, escape(heading)) + ground + text(16, 28, heading, font) + drawn.join(""),
  );
}

export function download(name: string, content: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "image/svg+xml" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// SPDX-License-Identifier: GPL-2.0-only
// The frame of one drawing on the page; from step to step only the parts that differ are replaced.

import type { TrackView } from "./chapter";
import type { Drawing } from "./draw";

const SVG = "http://www.w3.org/2000/svg";

function element(parent: Element, name: string, attributes: Record<string, string>): HTMLElement {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.append(made);
  return made;
}

export class Pane {
  readonly section: HTMLElement;
  private readonly head: HTMLElement;
  private readonly foot: HTMLElement;
  private readonly svg: SVGSVGElement;
  private parts: readonly string[] = [];

  constructor(host: Element, index: number, readonly of: TrackView) {
    const { series } = of.track;
    this.section = element(host, "section", { class: "track", "aria-label": series, "data-testid": `track-${index}` });
    this.head = element(this.section, "div", {});
    const canvas = element(this.section, "div", { class: "canvas scroll", tabindex: "0", role: "region", "aria-label": `Drawing of ${series}` });
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("class", "drawing");
    this.svg.setAttribute("role", "group");
    canvas.append(this.svg);
    this.foot = element(this.section, "div", {});
  }

  show(head: string, drawing: Drawing, foot: string): void {
    this.head.innerHTML = head;
    this.foot.innerHTML = foot;
    const { width, height, label } = drawing;
    for (const [key, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}`, "aria-label": label })) {
      this.svg.setAttribute(key, String(value));
    }
    this.draw(drawing.parts);
  }

  private draw(parts: readonly string[]): void {
    if (parts.length !== this.parts.length) this.svg.innerHTML = parts.join("");
    else parts.forEach((part, index) => part === this.parts[index] || this.replace(index, part));
    this.parts = parts;
  }

  private replace(index: number, part: string): void {
    const holder = document.createElementNS(SVG, "g");
    holder.innerHTML = part;
    const made = holder.firstElementChild;
    const old = this.svg.children[index];
    if (made && old) this.svg.replaceChild(made, old);
  }
}

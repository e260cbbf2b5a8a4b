// SPDX-License-Identifier: GPL-2.0-only
// Markup of SVG elements as text.

type Value = string | number | null | undefined | false;

export function escape(text: string): string {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

/** An element; attributes that are null, undefined or false are left out, content is markup. */
export function tag(name: string, attributes: Record<string, Value>, content = ""): string {
  const written = Object.entries(attributes)
    .filter(([, value]) => value !== null && value !== undefined && value !== false)
    .map(([key, value]) => ` ${key}="${escape(String(value))}"`)
    .join("");
  return `<${name}${written}>${content}</${name}>`;
}

export const title = (text: string): string => tag("title", {}, escape(text));

export function text(x: number, y: number, content: string, attributes: Record<string, Value> = {}): string {
  return tag("text", { x, y, ...attributes }, escape(content));
}

export const classes = (...names: Value[]): string | null => names.filter(Boolean).join(" ") || null;

/** What a button is: its looks, its name in words, and what pressing it does. */
export type Button = { label: string; class: string | null } & Record<string, Value>;

/** Something that can be pressed: by click, or by Enter when it has the focus; what is written on it lies above. */
export function button({ label, class: look, ...others }: Button, shapes: string, written: string): string {
  const shape = tag("g", { role: "button", tabindex: 0, "aria-label": label, ...others }, title(label) + shapes);
  return tag("g", { class: look }, shape + tag("g", { class: "written", "aria-hidden": "true" }, written));
}

// SPDX-License-Identifier: GPL-2.0-only
// Pieces of the page: elements by id, lists, and texts whose object names can be pressed.

import { escape, tag } from "./svg";

export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found as T;
}

export const paragraph = (text: string, look: string | null = null): string => tag("p", { class: look }, linked(text));

export const list = (items: readonly string[], look: string | null = null): string =>
  tag("ul", { class: look }, items.map((item) => tag("li", {}, item)).join(""));

export const ref = (id: string): string => tag("button", { type: "button", class: "ref", "data-select": id }, escape(id));

/** A text as markup, in which the name of an object is a button that selects it. */
export function linked(text: string): string {
  return text
    .split(/\b((?:vma|av|folio)\d+)\b/)
    .map((piece, index) => (index % 2 === 1 ? ref(piece) : escape(piece)))
    .join("");
}

export function table(head: readonly string[], rows: readonly (readonly string[])[], caption: string): string {
  const heads = head.map((one) => tag("th", { scope: "col" }, escape(one))).join("");
  const body = rows.map((row) => tag("tr", {}, row.map((cell) => tag("td", {}, cell)).join(""))).join("");
  return tag("table", {}, tag("caption", {}, escape(caption)) + tag("thead", {}, tag("tr", {}, heads)) + tag("tbody", {}, body));
}

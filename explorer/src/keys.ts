// SPDX-License-Identifier: GPL-2.0-only
// What each key does.

export type Action =
  | "next" | "previous" | "next-call" | "previous-call" | "first" | "last"
  | "jump" | "chain" | "tree" | "folios" | "inner" | "theme" | "help" | "clear" | "press";

const KEYS: Record<string, Action> = {
  ArrowRight: "next",
  ArrowLeft: "previous",
  Home: "first",
  End: "last",
  n: "jump",
  c: "chain",
  i: "tree",
  f: "folios",
  s: "inner",
  t: "theme",
  "?": "help",
  Escape: "clear",
};

export interface Press {
  key: string;
  shiftKey: boolean;
  ctrlKey: boolean;
  altKey: boolean;
  metaKey: boolean;
}

/** What the focus is on: text is typed there, it is a drawn object, or anything else. */
export type Focus = "typing" | "object" | "other";

export function action(press: Press, focus: Focus): Action | null {
  if (press.ctrlKey || press.altKey || press.metaKey || focus === "typing") return null;
  if (focus === "object" && (press.key === "Enter" || press.key === " ")) return "press";
  const found = KEYS[press.key] ?? null;
  if (press.shiftKey && found === "next") return "next-call";
  if (press.shiftKey && found === "previous") return "previous-call";
  return found;
}

export function focusOf(element: Element | null): Focus {
  if (element instanceof SVGElement && element.getAttribute("role") === "button") return "object";
  if (element instanceof HTMLInputElement && ["number", "search", "text"].includes(element.type)) return "typing";
  return element instanceof HTMLSelectElement ? "typing" : "other";
}

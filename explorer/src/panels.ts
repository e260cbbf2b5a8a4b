// SPDX-License-Identifier: GPL-2.0-only
// The panels in words: what changed, invariants, calls, and the counts above a drawing.

import { linked, list, paragraph } from "./html";
import type { Counts, State } from "./state";
import { counts } from "./state";
import { classes, escape, tag } from "./svg";
import type { Invariant, Moment, Track, Violation } from "./types";
import { count, plural } from "./words";

const series = (name: string | null): string => (name === null ? "" : tag("p", { class: "series" }, escape(name)));

export function words(moment: Moment, state: State, of: string | null): string {
  const said = moment.words.length > 0 ? list(moment.words.map(linked), "words") : paragraph(moment.call < 0 ? "No call has been made yet." : "Nothing changed.", "quiet");
  const locks = state.locks.length > 0 ? tag("h3", {}, "Locks held") + list(state.locks.map(linked)) : "";
  return series(of) + said + locks;
}

const broken = ({ id, statement, detail }: Violation): string =>
  `${tag("strong", { class: "no" }, `✘ ${escape(id)}`)} ${escape(statement)}${detail ? tag("span", { class: "detail" }, linked(detail)) : ""}`;

export function violations(moment: Moment, known: readonly Invariant[], of: string | null): string {
  const { violated, inner } = moment;
  if (known.length === 0 && violated.length === 0) return series(of) + paragraph("No invariants were checked.", "quiet");
  const others = known.length - new Set(violated.map((one) => one.id)).size;
  if (inner > 0 && violated.length === 0) return series(of) + paragraph("Invariants are checked between calls: go on to the end of this call.", "quiet");
  const verdict = violated.length === 0 ? tag("p", { class: "yes" }, `✔ All ${known.length} hold.`) : list(violated.map(broken), "broken");
  return series(of) + verdict + (violated.length > 0 && others > 0 ? paragraph(`The other ${others} hold.`) : "");
}

export function invariantList(known: readonly Invariant[]): string {
  return list(known.map(({ id, statement, source }) => `${tag("strong", {}, escape(id))} ${escape(statement)} ${tag("span", { class: "quiet" }, `(${escape(source)})`)}`));
}

/** The ends of the calls: which broke an invariant or failed, over all tracks. */
export interface CallLine {
  point: number;
  /** From 1; 0 is before any call. */
  call: number;
  text: string;
  broken: boolean;
  errno: string | null;
  fail: string | null;
}

export function callList(lines: readonly CallLine[]): string {
  const items = lines.map(({ point, call, text, broken: bad, errno, fail }) => {
    const marks = [
      fail === null ? "" : tag("span", { class: "tag" }, escape(fail)),
      errno === null ? "" : tag("span", { class: "tag warn" }, escape(errno)),
      bad ? tag("span", { class: "tag bad" }, "broken") : "",
    ];
    const number = tag("span", { class: "number" }, String(call));
    return tag("li", {}, tag("button", { type: "button", "data-go": point, tabindex: -1 }, number + tag("span", {}, escape(text)) + marks.join("")));
  });
  return tag("ol", { class: classes("call-list", lines.length > 500 && "long") }, items.join(""));
}

const COUNTED: [keyof Counts, (n: number) => string][] = [
  ["vmas", (n) => plural(n, "VMA")],
  ["anonVmas", (n) => plural(n, "anon_vma")],
  ["avcs", (n) => plural(n, "AVC")],
  ["folios", (n) => plural(n, "folio")],
  ["longest", (n) => `longest chain ${count(n)}`],
];

/** The line above a drawing; what differs from the other one is marked. */
export function heading(track: Track, state: State, other: State | null): string {
  const own = counts(state);
  const theirs = other && counts(other);
  const shown = COUNTED.map(([key, say]) => {
    const differs = theirs !== null && theirs[key] !== own[key];
    return tag("li", { class: differs ? "differs" : null }, `${escape(say(own[key]))}${differs ? tag("span", { class: "hidden" }, " (differs)") : ""}`);
  });
  const slab = state.slab ? tag("li", {}, `${count(state.slab.bytes)} bytes of slab`) : "";
  const name = track.kernel === null ? track.series : `${track.series}, read from a running ${track.kernel}`;
  return tag("h3", {}, escape(name)) + tag("ul", { class: "counts" }, shown.join("") + slab);
}

export function tags(moment: Moment): string {
  const { fail, errno, violated } = moment;
  return [
    fail === null ? "" : tag("span", { class: "tag" }, escape(fail)),
    errno === null ? "" : tag("span", { class: "tag warn" }, escape(errno)),
    ...[...new Set(violated.map((one) => one.id))].map((id) => tag("span", { class: "tag bad" }, escape(id))),
  ].join("");
}

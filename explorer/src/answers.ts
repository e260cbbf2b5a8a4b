// SPDX-License-Identifier: GPL-2.0-only
// The panel that answers a question about a folio, an anon_vma or a VMA.

import { linked, list, paragraph, ref, table } from "./html";
import type { State } from "./state";
import { vmasOf } from "./state";
import { escape, tag } from "./svg";
import type { Answer, Answers, Moment } from "./types";
import { counter, hex, pages, plural, vmaName } from "./words";

/** The answers of a moment: its own, or those of the last moment that has any. */
export function answersAt(moments: readonly Moment[], index: number): { answers: Answers; old: boolean } | null {
  for (let back = index; back >= 0; back -= 1) {
    const answers = moments[back]?.answers;
    if (answers) return { answers, old: back !== index };
  }
  return null;
}

const verdict = (good: boolean, yes: string, no: string): string =>
  tag("span", { class: good ? "yes" : "no" }, good ? `✔ ${yes}` : `✘ ${no}`);

function walk({ walk: visits }: Answer): string {
  if (!visits) return "";
  if (visits.length === 0) return paragraph("A walk visits no VMA.");
  const items = visits.map(({ vma, process, address, maps, why }) =>
    tag("li", {}, `${escape(process)} ${ref(vma)} at ${tag("code", {}, hex(address))} ${verdict(maps, "maps it", "does not map it")}: ${linked(why)}`),
  );
  return tag("h4", {}, "The walk, in visiting order") + tag("ol", {}, items.join(""));
}

function holds({ holds: held }: Answer): string {
  if (!held || held.length === 0) return "";
  const sum = held.reduce((total, one) => total + one.refs, 0);
  const rows = held.map(({ what, refs }) => [linked(what), String(refs)]);
  return table(["who", "references"], [...rows, [tag("strong", {}, "together"), tag("strong", {}, String(sum))]], "Who holds references");
}

function reuse({ reuse: may }: Answer): string {
  if (!may) return "";
  return tag("p", {}, `${verdict(may.may, "a fork may adopt it", "no fork adopts it now")}: ${linked(may.why)}`);
}

function chain({ chain: links }: Answer): string {
  if (!links || links.length === 0) return "";
  const rows = links.map(({ anon_vma, own, why }, index) => [String(index + 1), ref(anon_vma) + (own ? " (own)" : ""), linked(why)]);
  return table(["place", "anon_vma", "why"], rows, "The VMA's list of AVCs, head first");
}

function merge({ merge: merges }: Answer): string {
  if (!merges || merges.length === 0) return "";
  const items = merges.map(({ neighbour, side, allowed, why }) => {
    const reasons = why.map(linked).join("; ");
    return `with ${ref(neighbour)} ${side} it: ${verdict(allowed, "could be merged", "cannot be merged")}${reasons ? `: ${reasons}` : ""}`;
  });
  return tag("h4", {}, "Neighbours") + list(items);
}

/** What the state itself says about an object; null if it has none of that id. */
export function facts(id: string, state: State): string | null {
  const folio = state.folios.get(id);
  if (folio) {
    const kind = folio.order > 0 ? `, ${plural(2 ** folio.order, "page")}` : "";
    return `folio: names ${folio.mapping ?? "no anon_vma"}, index ${hex(folio.index)}, mapped ${plural(folio.mapcount, "time")}, ${folio.exclusive ? "exclusive" : "not exclusive"}${kind}`;
  }
  const anonVma = state.anonVmas.get(id);
  if (anonVma) {
    const { root, parent, refcount, num_children, num_active_vmas, degree, tree } = anonVma;
    const counts = degree ? `degree ${degree}` : `${counter(num_children)} children, own of ${plural(num_active_vmas, "VMA")}`;
    return `anon_vma: root ${root}, parent ${parent}, ${plural(refcount, "reference")}, ${counts}, ${plural(tree.length, "VMA")} in its tree`;
  }
  const found = vmasOf(state).get(id);
  if (!found) return null;
  const { vma, process } = found;
  return `${vmaName(process.name, vma)}: ${plural(pages(vma), "page")}, flags ${vma.flags}, page offset ${hex(vma.pgoff)}${vma.file === null ? "" : `, file ${vma.file}`}`;
}

export interface Question {
  id: string;
  state: State;
  answer: Answer | null;
  /** The answer is that of an earlier moment. */
  old: boolean;
  /** The series, where two are shown. */
  of: string | null;
}

export function answered({ id, state, answer, old, of }: Question): string {
  const fact = facts(id, state);
  const head = of === null ? "" : tag("p", { class: "series" }, escape(of));
  if (fact === null && !answer) return head + paragraph(`There is no ${id} at this moment.`);
  const body = answer
    ? [
        tag("h3", {}, escape(answer.title)),
        old ? paragraph("As it was after the last whole call.", "quiet") : "",
        ...answer.lines.map((line) => paragraph(line)),
        walk(answer), holds(answer), reuse(answer), chain(answer), merge(answer),
      ].join("")
    : tag("h3", {}, escape(id));
  return head + body + (fact === null ? "" : paragraph(fact, "quiet"));
}

// SPDX-License-Identifier: GPL-2.0-only
// Renders the page: time, story, drawings and panels of where the reader is.

import { answered, answersAt } from "./answers";
import type { ChapterView } from "./chapter";
import { diff } from "./diff";
import { draw } from "./draw";
import { focused, keepInSight, refocus } from "./focus";
import type { Part, Plan } from "./grouping";
import type { Where } from "./hash";
import { byId, paragraph } from "./html";
import { legend } from "./legend";
import { marks } from "./marks";
import { Overview } from "./overviews";
import { Pane } from "./pane";
import { callList, heading, invariantList, tags, violations, words } from "./panels";
import type { State } from "./state";
import { escape, tag } from "./svg";
import { earlier, stops } from "./timeline";
import type { Answer, Document } from "./types";
import { count, named, plural } from "./words";

export class Page {
  readonly overview = new Overview();
  private panes: Pane[] = [];
  private shown: ChapterView | null = null;
  private room = roomOf();
  private view!: ChapterView;
  private where!: Where;

  constructor(private readonly source: Document) {
    this.frame();
  }

  render(view: ChapterView, where: Where): void {
    this.view = view;
    this.where = where;
    if (where.theme) document.documentElement.dataset["theme"] = where.theme;
    else delete document.documentElement.dataset["theme"];
    if (this.shown !== view) this.renderChapter();
    this.renderTime();
    this.renderStory();
    this.renderTracks();
    this.renderPanels();
    requestAnimationFrame(() => this.scroll());
  }

  /** Arranges the drawings anew in a window of another size. */
  resize(): void {
    this.room = roomOf();
    this.renderTracks();
  }

  /** What never changes. */
  private frame(): void {
    const { rmaplab, title, chapters, invariants } = this.source;
    byId("title").textContent = title;
    byId("subtitle").textContent = `Linux's anonymous reverse map, step by step · rmaplab ${rmaplab}`;
    byId("chapters").hidden = chapters.length < 2;
    byId("chapter").innerHTML = chapters.map((one, index) => tag("option", { value: index }, escape(`${index + 1}. ${one.title}`))).join("");
    byId("invariant-list").innerHTML = invariantList(invariants);
    byId("all-invariants").hidden = invariants.length === 0;
  }

  private renderChapter(): void {
    const { chapter, lanes } = this.view;
    this.shown = this.view;
    byId<HTMLSelectElement>("chapter").value = String(this.where.chapter);
    byId<HTMLButtonElement>("previous-chapter").disabled = this.where.chapter === 0;
    byId<HTMLButtonElement>("next-chapter").disabled = this.where.chapter === this.source.chapters.length - 1;
    const head = this.source.chapters.length > 1 ? tag("h2", {}, escape(`${this.where.chapter + 1}. ${chapter.title}`)) : "";
    byId("chapter-text").innerHTML = head + chapter.text.map((one) => paragraph(one)).join("");
    byId("lanes").innerHTML = lanes.markup;
    byId("calls").innerHTML = callList(this.view.calls());
    const still = this.view.points.length < 2;
    byId("time").hidden = byId("calls-panel").hidden = byId("words-panel").hidden = still;
    byId("toggle-inner").closest("label")?.toggleAttribute("hidden", !this.view.points.some((point) => point.inner > 0));
    byId("calls-total").textContent = `of ${count(Math.max(...chapter.tracks.map((track) => track.calls.length)))}`;
  }

  private renderTime(): void {
    const { points, lanes } = this.view;
    const { point, inner } = this.where;
    const all = stops(points, inner);
    const slider = byId<HTMLInputElement>("slider");
    slider.max = String(all.length - 1);
    slider.value = String(Math.max(0, all.indexOf(point)));
    slider.setAttribute("aria-valuetext", this.said());
    byId<HTMLInputElement>("jump").value = String((points[point]?.call ?? -1) + 1);
    for (const [id, end] of [["first", 0], ["previous", 0], ["previous-call", 0], ["next", points.length - 1], ["next-call", points.length - 1], ["last", points.length - 1]] as const) {
      byId(id).setAttribute("aria-disabled", String(point === end));
    }
    const cursor = document.getElementById("cursor");
    if (cursor) cursor.innerHTML = lanes.cursor(points, point, inner);
    for (const name of ["inner", "chain", "tree", "folios"] as const) byId<HTMLInputElement>(`toggle-${name}`).checked = this.where[name];
  }

  private said(): string {
    const { point } = this.where;
    const { call, inner } = this.view.points[point] ?? { call: -1, inner: 0 };
    const { text } = this.view.moment(0, point);
    if (call < 0) return text;
    return `call ${call + 1}${inner > 0 ? `, inner step ${inner}` : ""}: ${text}`;
  }

  private renderStory(): void {
    const { points, tracks } = this.view;
    const { point } = this.where;
    const { call, inner } = points[point] ?? { call: -1, inner: 0 };
    const moments = tracks.map((_, index) => this.view.moment(index, point));
    const steps = points.filter((one) => one.call === call && one.inner > 0).length;
    const inside = inner > 0 ? `, inner step ${inner} of ${steps}: inside ${this.view.chapter.tracks[0]?.calls[call] ?? "the call"}` : "";
    byId("where").textContent = call < 0 ? "Before the first call" : `Call ${call + 1}${inside}`;
    byId("where").hidden = points.length < 2;
    byId("moment-text").innerHTML = escape(moments[0]?.text ?? "") + (tracks.length === 1 && moments[0] ? tags(moments[0]) : "");
    const note = moments.map((moment) => moment.note).find((one) => one !== null);
    byId("note").hidden = note === undefined;
    byId("note").textContent = note ?? "";
    byId("live").textContent = `${this.said()}. ${(moments[0]?.words ?? []).slice(0, 3).join(". ")}`;
  }

  private renderTracks(): void {
    const focus = focused();
    const large = this.view.tracks.some((one) => one.large);
    if (large && !this.where.part) {
      document.body.classList.add("wide");
      this.overview.show(byId("tracks"), this.view.tracks.map((track, index) => ({ series: track.track.series, state: this.state(index) })));
      byId("legend").hidden = true;
      return;
    }
    this.overview.hide();
    this.arrange();
    this.frames(large);
    this.view.tracks.forEach((_, index) => this.renderTrack(index, large));
    byId("legend").hidden = false;
    byId("legend").innerHTML = legend({ ...this.where, occurs: this.occurs() });
    refocus(focus);
  }

  private occurs(): ChapterView["occurs"] {
    const { occurs } = this.view;
    return { ...occurs, pending: occurs.pending && (occurs.broken || this.where.inner) };
  }

  /** Makes the frames of the drawings, if those of before are not there any more. */
  private frames(large: boolean): void {
    const host = byId("tracks");
    const names = this.view.tracks.map((view) => view.track.series);
    if (this.panes.length === names.length && this.panes.every((pane, index) => pane.of === this.view.tracks[index] && pane.section.isConnected)) return;
    host.innerHTML = large ? tag("p", {}, tag("button", { type: "button", "data-back": "", id: "back" }, "‹ All processes and trees")) : "";
    this.panes = this.view.tracks.map((view, index) => new Pane(host, index, view));
  }

  /** Gives wide drawings the whole width, and puts two side by side if both fit. */
  private arrange(): void {
    const part = this.view.tracks.some((view) => view.large) ? this.where.part : null;
    const widths = this.view.tracks.map((view) => view.picture(part, this.where.folios).layout.width);
    const { room } = this;
    const beside = widths.length > 1 && 2 * Math.max(...widths) + 20 <= room;
    document.body.classList.toggle("beside", beside);
    document.body.classList.toggle("wide", beside || Math.max(...widths) > room - 398);
  }

  private state(track: number): State {
    const found = this.view.tracks[track]?.states[this.view.index(track, this.where.point)];
    if (!found) throw new Error(`track ${track} has no state at ${this.where.point}`);
    return found;
  }

  private renderTrack(index: number, large: boolean): void {
    const view = this.view.tracks[index];
    if (!view) return;
    const { part, selection, chain, tree, folios } = this.where;
    const moment = this.view.moment(index, this.where.point);
    const state = this.state(index);
    const back = earlier(view.track, this.view.index(index, this.where.point));
    const before = back === null ? null : (view.states[back] ?? null);
    const { layout, planned } = view.picture(large ? part : null, folios);
    const two = this.view.tracks.length > 1;
    const drawing = draw({
      prefix: `track${index}`,
      label: `The reverse map of ${view.track.series}: ${moment.text}`,
      layout, planned, state, before, chain, tree, folios,
      diff: diff(state, before),
      marks: marks(selection, state, this.answer(index)?.answer ?? null),
      named: moment.inner > 0 ? named(moment.text) : new Set(),
    });
    const ended = two ? tag("p", { class: "ended" }, `${moment.call < 0 ? "" : escape(moment.text)} ${tags(moment)}`) : "";
    this.panes[index]?.show(heading(view.track, state, two ? this.state(1 - index) : null) + ended, drawing, drawnOf(planned, part));
  }

  private answer(track: number): { answer: Answer; old: boolean } | null {
    const { selection } = this.where;
    const moments = this.view.chapter.tracks[track]?.moments ?? [];
    const found = selection === null ? null : answersAt(moments, this.view.index(track, this.where.point));
    const answer = found?.answers[selection ?? ""];
    return answer && found ? { answer, old: found.old } : null;
  }

  private renderPanels(): void {
    const { point, selection } = this.where;
    const { tracks } = this.view;
    const of = (index: number): string | null => (tracks.length > 1 ? (tracks[index]?.track.series ?? null) : null);
    const each = (panel: (index: number) => string): string => tracks.map((_, index) => panel(index)).join("");
    byId("words").innerHTML = each((index) => words(this.view.moment(index, point), this.state(index), of(index)));
    byId("invariants").innerHTML = each((index) => violations(this.view.moment(index, point), this.source.invariants, of(index)));
    byId("clear").hidden = selection === null;
    byId("answer-head").textContent = selection === null ? "Ask" : selection;
    byId("answer").innerHTML =
      selection === null
        ? paragraph("Press a folio, an anon_vma or a VMA, and read here who can reach it and why.", "quiet")
        : each((index) => answered({ id: selection, state: this.state(index), answer: this.answer(index)?.answer ?? null, old: this.answer(index)?.old ?? false, of: of(index) }));
    this.renderCall();
  }

  private renderCall(): void {
    const call = this.view.points[this.where.point]?.call;
    const buttons = document.querySelectorAll<HTMLButtonElement>("#calls button");
    const current = [...buttons].find((one) => this.view.points[Number(one.dataset["go"])]?.call === call);
    document.querySelectorAll("#calls [aria-current]").forEach((one) => {
      one.removeAttribute("aria-current");
      one.setAttribute("tabindex", "-1");
    });
    if (!current) return;
    current.setAttribute("aria-current", "step");
    current.tabIndex = 0;
  }

  /** Scrolls the lanes and the calls to the current one. */
  private scroll(): void {
    const { lanes, points } = this.view;
    const { point } = this.where;
    keepInSight(byId("lanes"), lanes.x(points[point]?.call ?? -1), lanes.y(this.view.moment(0, point).process));
    const box = byId("calls");
    const current = box.querySelector<HTMLElement>("[aria-current]");
    if (!current) return;
    const { offsetTop: top, offsetHeight: height } = current;
    if (top < box.scrollTop || top + height > box.scrollTop + box.clientHeight) box.scrollTop = top - box.clientHeight / 2;
  }
}

const roomOf = (): number => document.documentElement.clientWidth - 80;

function drawnOf(planned: Plan | null, part: Part | null): string {
  if (!planned || !part) return "";
  const of = part.kind === "process" ? `process ${part.name}` : `the tree of ${part.name}`;
  const more = planned.drawn < planned.total ? tag("button", { type: "button", "data-rows": "" }, "Draw 100 more rows") : "";
  return tag("p", { class: "drawn", "data-testid": "drawn" }, `${count(planned.drawn)} of ${escape(plural(planned.total, "VMA"))} of ${escape(of)} drawn. ${more}`);
}

// SPDX-License-Identifier: GPL-2.0-only
// Puts the page together: reads the document, reacts to keys and presses, and renders.

import { ChapterView } from "./chapter";
import type { TrackView } from "./chapter";
import type { Part } from "./grouping";
import type { Theme, Where } from "./hash";
import { format, parse } from "./hash";
import { byId } from "./html";
import type { Action } from "./keys";
import { action, focusOf } from "./keys";
import { Page } from "./page";
import { download, standalone } from "./save";
import { afterCall, snap, step, stops } from "./timeline";
import type { Document } from "./types";

type Memory = "push" | "replace" | "none";

const SEEN = "rmaplab-explorer-read";

class Explorer {
  private readonly chapters: (ChapterView | undefined)[];
  private readonly page: Page;
  private where: Where;

  constructor(private readonly document: Document) {
    this.chapters = document.chapters.map(() => undefined);
    this.where = this.start();
    this.page = new Page(document);
    this.listen();
    this.restore();
    this.welcome();
  }

  // --- where we are -----------------------------------------------------------------

  private start(): Where {
    return { chapter: 0, point: 0, inner: this.chapter(0).notesInside, chain: false, tree: false, folios: true, selection: null, part: null, theme: null };
  }

  private chapter(index: number): ChapterView {
    const known = this.chapters[index];
    if (known) return known;
    const chapter = this.document.chapters[index];
    if (!chapter) throw new Error(`there is no chapter ${index}`);
    return (this.chapters[index] = new ChapterView(chapter));
  }

  private get view(): ChapterView {
    return this.chapter(this.where.chapter);
  }

  private restore(): void {
    const start = this.start();
    const asked = parse(location.hash);
    const chapter = Math.min(asked.chapter ?? 0, this.document.chapters.length - 1);
    const found = { ...start, ...asked, chapter };
    if (asked.inner === undefined) found.inner = this.chapter(chapter).notesInside;
    this.where = { ...found, point: Math.min(found.point, this.chapter(chapter).points.length - 1) };
    if (this.view.points[this.where.point]?.inner) this.where.inner = true;
    this.page.render(this.view, this.where);
  }

  private change(change: Partial<Where>, memory: Memory): void {
    this.where = { ...this.where, ...change };
    if (memory !== "none") this.remember(memory);
    this.page.render(this.view, this.where);
  }

  private remember(memory: "push" | "replace"): void {
    const hash = format(this.where);
    if (hash === location.hash) return;
    try {
      if (memory === "push") history.pushState(null, "", hash);
      else history.replaceState(null, "", hash);
    } catch {
      location.hash = hash; // some sandboxes have no history
    }
  }

  go(point: number, memory: Memory = "push"): void {
    const inside = (this.view.points[point]?.inner ?? 0) > 0;
    this.change({ point: snap(this.view.points, point, this.where.inner || inside), inner: this.where.inner || inside }, memory);
  }

  select(id: string | null): void {
    this.change({ selection: id }, "push");
  }

  get point(): number {
    return this.where.point;
  }

  get points(): number {
    return this.view.points.length;
  }

  private openChapter(chapter: number): void {
    if (!this.document.chapters[chapter]) return;
    const { notesInside } = this.chapter(chapter);
    this.change({ chapter, point: 0, inner: notesInside, selection: null, part: null }, "push");
  }

  // --- events ------------------------------------------------------------------------

  private listen(): void {
    window.addEventListener("resize", () => this.page.resize());
    window.addEventListener("popstate", () => this.restore());
    document.addEventListener("keydown", (event) => this.key(event));
    document.addEventListener("click", (event) => this.click(event));
    const press: [string, Action][] = [
      ["first", "first"], ["previous-call", "previous-call"], ["previous", "previous"], ["next", "next"],
      ["next-call", "next-call"], ["last", "last"], ["theme", "theme"], ["help", "help"], ["clear", "clear"],
    ];
    for (const [id, does] of press) byId(id).addEventListener("click", () => this.act(does));
    for (const name of ["inner", "chain", "tree", "folios"] as const) {
      byId(`toggle-${name}`).addEventListener("change", () => this.act(name));
    }
    byId("slider").addEventListener("input", () => this.slide());
    byId("jump").addEventListener("change", () => this.jump());
    byId("save").addEventListener("click", () => this.save());
    byId("chapter").addEventListener("change", () => this.openChapter(Number(byId<HTMLSelectElement>("chapter").value)));
    byId("previous-chapter").addEventListener("click", () => this.openChapter(this.where.chapter - 1));
    byId("next-chapter").addEventListener("click", () => this.openChapter(this.where.chapter + 1));
    byId("show-reading").addEventListener("click", () => this.read());
    byId("tracks").addEventListener("input", (event) => this.filter(event));
  }

  private key(event: KeyboardEvent): void {
    if (document.querySelector("dialog[open]")) return;
    const does = action(event, focusOf(document.activeElement));
    if (!does) return;
    event.preventDefault();
    if (does === "press") this.press(document.activeElement);
    else this.act(does);
  }

  private act(does: Action): void {
    const { points } = this.view;
    const { point, inner } = this.where;
    switch (does) {
      case "next": return this.go(step(points, point, 1, inner), "replace");
      case "previous": return this.go(step(points, point, -1, inner), "replace");
      case "next-call": return this.go(step(points, point, 1, false), "replace");
      case "previous-call": return this.go(step(points, point, -1, false), "replace");
      case "first": return this.go(0);
      case "last": return this.go(points.length - 1);
      case "jump": return byId<HTMLInputElement>("jump").select();
      case "chain": case "tree": case "folios": return this.change({ [does]: !this.where[does] }, "replace");
      case "inner": return this.change({ inner: !inner, point: snap(points, point, !inner) }, "replace");
      case "theme": return this.change({ theme: this.theme === "dark" ? "light" : "dark" }, "replace");
      case "help": return byId<HTMLDialogElement>("help-dialog").showModal();
      case "clear": return this.where.selection === null ? undefined : this.select(null);
      case "press": return undefined;
    }
  }

  private click(event: Event): void {
    if (!(event.target instanceof Element)) return;
    if (event.target.closest("[data-close]")) return event.target.closest("dialog")?.close();
    return this.press(event.target);
  }

  /** Does what the pressed element stands for. */
  private press(target: Element | null): void {
    const pressed = target?.closest("[data-select],[data-go],[data-expand],[data-part],[data-sort],[data-more],[data-rows],[data-back]");
    if (!(pressed instanceof HTMLElement || pressed instanceof SVGElement)) return;
    const { select, go, expand, part, sort, more, rows, back } = pressed.dataset;
    if (select !== undefined) this.select(pressed instanceof SVGElement && select === this.where.selection ? null : select);
    else if (go !== undefined) this.go(Number(go));
    else if (expand !== undefined && this.where.part) this.enlarge((view, shown) => view.open(shown, expand));
    else if (rows !== undefined) this.enlarge((view) => view.more());
    else if (part !== undefined) this.change({ part: partOf(part) }, "push");
    else if (back !== undefined) this.change({ part: null }, "push");
    else if (sort !== undefined || more !== undefined) {
      if (sort !== undefined) this.page.overview.sort(sort);
      else this.page.overview.more();
      this.page.render(this.view, this.where);
    }
  }

  private enlarge(enlarge: (view: TrackView, part: Part) => void): void {
    const { part } = this.where;
    if (part) this.view.tracks.forEach((view) => enlarge(view, part));
    this.page.render(this.view, this.where);
  }

  private filter(event: Event): void {
    if (!(event.target instanceof HTMLInputElement) || event.target.dataset["filter"] === undefined) return;
    this.page.overview.filter = event.target.value;
    this.page.overview.refresh();
  }

  private slide(): void {
    const at = Number(byId<HTMLInputElement>("slider").value);
    this.go(stops(this.view.points, this.where.inner)[at] ?? 0, "replace");
  }

  private jump(): void {
    const { value } = byId<HTMLInputElement>("jump");
    if (value !== "") this.go(afterCall(this.view.points, Number(value)));
  }

  private save(): void {
    const drawings = [...document.querySelectorAll<SVGSVGElement>("#tracks svg.drawing")];
    const moment = this.view.moment(0, this.where.point);
    const panels = drawings.map((drawing, index) => ({ title: this.view.chapter.tracks[index]?.series ?? "", drawing }));
    if (panels.length > 0) download(`rmaplab-${this.where.chapter + 1}-${this.where.point}.svg`, standalone(`${this.view.chapter.title}: ${moment.text}`, panels));
  }

  private welcome(): void {
    if (this.document.source !== "tour" || location.hash !== "") return;
    try {
      if (localStorage.getItem(SEEN) !== null) return;
      localStorage.setItem(SEEN, "yes");
    } catch {
      return; // without a memory it would be shown every time
    }
    this.read();
  }

  private read(): void {
    byId<HTMLDialogElement>("help-dialog").close();
    byId<HTMLDialogElement>("reading-dialog").showModal();
  }

  private get theme(): Theme {
    return this.where.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  }
}

function partOf(text: string): Part {
  const colon = text.indexOf(":");
  return { kind: text.slice(0, colon) as Part["kind"], name: text.slice(colon + 1) };
}

const explorer = new Explorer(JSON.parse(byId("data").textContent ?? "") as Document);

declare global {
  interface Window {
    rmaplab: { moment(): number; moments(): number; go(n: number): void; select(id: string | null): void; ready: boolean };
  }
}

window.rmaplab = {
  moment: () => explorer.point,
  moments: () => explorer.points,
  go: (n) => explorer.go(n),
  select: (id) => explorer.select(id),
  ready: true,
};

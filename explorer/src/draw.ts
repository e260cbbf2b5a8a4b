// SPDX-License-Identifier: GPL-2.0-only
// One state as an SVG drawing: processes and their VMAs, the anon_vmas beside them, AVCs at the crossings.

import { cellsOf } from "./cells";
import type { Cell } from "./cells";
import { symbol, titled } from "./crossing";
import type { Diff } from "./diff";
import type { Plan, Row } from "./grouping";
import { rowsOf } from "./grouping";
import type { Band, Column, Layout, Place } from "./layout";
import { SIZE, overlays, rowLabel } from "./layout";
import type { Crossing } from "./links";
import { crossings } from "./links";
import type { Marks } from "./marks";
import type { Paint } from "./paint";
import { paint } from "./paint";
import type { State } from "./state";
import { owners } from "./state";
import { button, classes, tag, text, title } from "./svg";
import type { AnonVma, Process, Vma } from "./types";
import { PAGE, clipped, count, counter, hex, pages, plural, rights, vmaName } from "./words";

export interface View {
  /** Keeps the ids of two drawings on one page apart. */
  prefix: string;
  label: string;
  layout: Layout;
  state: State;
  before: State | null;
  diff: Diff;
  planned: Plan | null;
  chain: boolean;
  tree: boolean;
  folios: boolean;
  marks: Marks;
  /** Objects that the text of this moment names. */
  named: ReadonlySet<string>;
}

/** A row with its place and the process that has it. */
interface Seat {
  row: Row;
  place: Place;
  process: Process;
  column: Column;
  x: number;
  ghost: boolean;
}

interface Scene extends View {
  ink: Paint;
  seats: Seat[];
  ghosts: Seat[];
}

function seatsOf(view: View, state: State, ghost: boolean): Seat[] {
  const seats: Seat[] = [];
  for (const process of owners(state).values()) {
    const column = view.layout.columns.get(process.name);
    if (!column) continue;
    const rows = rowsOf(process, view.planned);
    const lifted = column.lanes > 1 ? overlays(rows) : null;
    for (const row of rows) {
      const place = view.layout.place(row);
      const x = column.x + (lifted?.has(row.id) ? view.layout.box.width + 6 : 0);
      if (place) seats.push({ row, place, process, column, x, ghost });
    }
  }
  return seats;
}

function goneSeats(view: View, seats: readonly Seat[]): Seat[] {
  if (!view.before || view.before.processes === view.state.processes) return [];
  const now = new Set(seats.map((seat) => seat.row.id));
  return seatsOf(view, view.before, true).filter((seat) => !now.has(seat.row.id));
}

/** An SVG drawing in parts, each one element, of which most stay the same from moment to moment. */
export interface Drawing {
  width: number;
  height: number;
  label: string;
  parts: string[];
}

export function draw(view: View): Drawing {
  const seats = seatsOf(view, view.state, false);
  const scene: Scene = { ...view, ink: paint(view.prefix), seats, ghosts: goneSeats(view, seats) };
  const { width, height, order, lines } = view.layout;
  const group = (markup: string): string => tag("g", {}, markup);
  const parts = [
    scene.ink.defs(order.length),
    addresses(scene),
    group(family(scene)),
    group(scene.ghosts.map((seat) => box(scene, seat) + goneLinks(scene, seat)).join("")),
    ...seats.map((seat) => wire(scene, seat)),
    group(heads(scene)),
    ...seats.map((seat) => group(box(scene, seat) + inside(scene, seat))),
    ...seats.map((seat) => group(links(scene, seat))),
    group(counterNames(scene)),
    ...[...lines.keys()].map((id) => group(anonVma(scene, id))),
  ];
  return { width, height, label: view.label, parts };
}

// --- processes and VMAs ---------------------------------------------------------

function addresses({ layout }: Scene): string {
  const x = SIZE.edge + SIZE.gutter - 10;
  const rule = (y: number): string => tag("line", { class: "rule", x1: SIZE.edge + SIZE.gutter, x2: layout.right, y1: y, y2: y });
  const at = (address: number, y: number): string => text(x, y + 12, hex(address), { class: "address", "text-anchor": "end" });
  const bands = layout.bands.map((band) => rule(band.top) + at(band.start, band.top) + (band.gap ? gapMark(band, x) : ""));
  const last = layout.bands.at(-1);
  return tag("g", {}, bands.join("") + (last ? rule(last.bottom) + at(last.end, last.bottom) : ""));
}

function gapMark(band: Band, x: number): string {
  const says = `nobody has these ${plural((band.end - band.start) / PAGE, "page")}`;
  return tag("g", {}, title(says) + text(x + 14, band.top + 15, "⋮", { class: "soft" }));
}

function heads({ layout, state, diff }: Scene): string {
  const owner = owners(state);
  const drawn = [...layout.columns.values()].map((column) => {
    const process = state.processes.get(column.name);
    if (!process) return "";
    const first = owner.get(process.mm);
    const shared = first && first.name !== process.name ? ` (mm of ${first.name})` : "";
    const fresh = diff.processes.has(column.name);
    const name = `${clipped(column.name, Math.floor(column.width / 8))}${shared}${process.building ? " (forking)" : ""}${fresh ? " ✱" : ""}`;
    const says = `process ${column.name}, ${plural(process.vmas.length, "VMA")}${process.building ? ", not ready yet" : ""}`;
    const pill = tag("rect", { x: column.x, y: layout.top - 33, width: column.width, height: 24, rx: 4 });
    const label = text(column.x + column.width / 2, layout.top - 16, name, { class: "name", "text-anchor": "middle" });
    return tag("g", { class: classes("process", process.building && "building", fresh && "new") }, title(says) + pill + label);
  });
  return drawn.join("");
}

function vmaLabel(process: string, vma: Vma): string {
  const own = vma.anon_vma === null ? "no anon_vma" : `own anon_vma ${vma.anon_vma}`;
  const file = vma.file === null ? "" : `, file ${vma.file}`;
  const links = `linked to ${vma.chain.length === 0 ? "none" : vma.chain.join(", ")}`;
  const built = vma.building ? ", not in the address space" : "";
  return `${vma.id}: ${vmaName(process, vma)}, ${plural(pages(vma), "page")}, ${vma.flags}${file}; ${own}, ${links}${built}`;
}

function shortPages(n: number): string {
  return n < 10_000 ? `${n}p` : `${Math.round(n / 1000)}kp`;
}

function box(scene: Scene, seat: Seat): string {
  const { row, place, x, ghost } = seat;
  const { width } = scene.layout.box;
  const first = row.vmas[0];
  if (!first) return "";
  const frame = { class: "frame", x, y: place.top + 1, width, height: place.bottom - place.top - 2, rx: 4 };
  const port = tag("rect", { class: "port", x: x + width - 4, y: place.y - 4, width: 8, height: 8 });
  if (ghost) {
    const name = text(x + 8, place.top + 16, first.id, { class: "name" });
    return tag("g", { class: "vma ghost", "aria-hidden": "true" }, tag("rect", frame) + name);
  }
  if (row.vmas.length > 1) return run(scene, seat, tag("rect", frame) + port);
  const change = scene.diff.vmas.get(first.id);
  const { marks, named } = scene;
  const written = [
    text(x + 8, place.top + 16, first.id, { class: "name" }),
    text(x + width - 8, place.top + 16, `${shortPages(pages(first))} ${rights(first.flags)}`, { "text-anchor": "end" }),
    first.file === null ? "" : text(x + 8, place.top + 31, clipped(first.file, Math.floor((width - 12) / 6.5)), { class: "soft" }),
    change ? star(x + width - 2, place.top + 6) : "",
  ];
  const look = classes("vma", first.building && "building", change, named.has(first.id) && "named", marks.selected === first.id && "selected", marks.vmas.has(first.id) && "marked");
  const label = vmaLabel(seat.process.name, first) + (change ? ` (${change})` : "");
  return button({ label, class: look, "data-select": first.id, "aria-pressed": String(marks.selected === first.id) }, tag("rect", frame) + port, written.join(""));
}

function run(scene: Scene, { row, place, x, process }: Seat, frame: string): string {
  const changed = row.vmas.some((vma) => scene.diff.vmas.has(vma.id));
  const label = `${plural(row.vmas.length, "neighbouring VMA")} of ${process.name} with one chain: open 100 more`;
  const name = text(x + 8, place.top + 20, `× ${count(row.vmas.length)} VMAs`, { class: "name" });
  const written = name + (changed ? star(x + scene.layout.box.width - 2, place.top + 6) : "");
  return button({ label, class: classes("vma run", changed && "changed"), "data-expand": row.id }, frame, written);
}

const star = (x: number, y: number): string => text(x, y, "✱", { class: "star", "text-anchor": "middle" });

// --- pages ------------------------------------------------------------------------

function inside(scene: Scene, seat: Seat): string {
  const { row, process } = seat;
  const vma = row.vmas[0];
  if (!scene.folios || !vma || row.vmas.length > 1 || vma.building) return "";
  const now = cellsOf(scene.state).get(process.mm);
  const old = scene.before && process.building !== true ? cellsOf(scene.before).get(process.mm) : undefined;
  const { across } = scene.layout.box;
  const drawn: string[] = [];
  for (const band of scene.layout.bands) {
    if (band.end <= vma.start || band.start >= vma.end) continue;
    for (const [address, slot] of band.slots) {
      const at = { x: seat.x + 8 + (slot % across) * SIZE.cell, y: band.pages + Math.floor(slot / across) * SIZE.line };
      const cell = now?.get(address);
      if (cell) drawn.push(page(scene, cell, at, scene.before !== null && !sameCell(cell, old?.get(address))));
      else if (old?.has(address) && scene.before) drawn.push(outline(at, "ghost page", "what was mapped here is gone"));
      else if (band.allPages) drawn.push(outline(at, "absent page", `nothing at ${hex(address)}`));
    }
  }
  return drawn.join("") + hidden(scene, seat, vma, now);
}

const sameCell = (a: Cell, b: Cell | undefined): boolean =>
  b !== undefined && a.kind === b.kind && a.folio === b.folio && a.mapping === b.mapping && a.exclusive === b.exclusive && a.label === b.label;

interface At {
  x: number;
  y: number;
}

const outline = ({ x, y }: At, look: string, says: string): string =>
  tag("rect", { class: look, x, y, width: 23, height: 18, rx: 2 }, title(says));

function page(scene: Scene, cell: Cell, { x, y }: At, changed: boolean): string {
  const { marks, ink, layout, prefix } = scene;
  const mark = changed ? star(x + 22, y + 5) : "";
  const look = (kind: string, more: string | false = ""): string | null =>
    classes("page", kind, more, cell.exclusive ? "exclusive" : "shared", changed && "changed");
  const label = text(x + 11.5, y + 13.5, cell.label, { "text-anchor": "middle" });
  if (cell.kind === "guard") {
    const area = tag("rect", { class: "shape", x, y, width: 23, height: 18, rx: 2, fill: `url(#${prefix}-guard)` });
    return tag("g", { class: look("guard") }, title(cell.says()) + area + mark);
  }
  if (cell.kind === "swap") {
    const shape = tag("path", { class: "shape", d: `M${x},${y + 9} l11.5,-9.5 11.5,9.5 -11.5,9.5 z` });
    if (cell.folio === null) return tag("g", { class: look("swap") }, title(cell.says()) + shape + label + mark);
    return button({ label: cell.says(), class: look("swap"), "data-select": cell.folio }, shape, label + mark);
  }
  const index = cell.mapping === null ? -1 : layout.order.indexOf(cell.mapping);
  const { class: fill, ...others } = index < 0 ? { class: "fill-none" } : ink.fill(index);
  const square = tag("rect", { x, y, width: 23, height: 18, rx: 2, class: `shape ${fill}`, ...others });
  const selected = marks.selected === cell.folio;
  return button(
    { label: cell.says(), class: look("folio", `on-${fill}`) + (selected ? " selected" : ""), "data-select": cell.folio, "aria-pressed": String(selected) },
    square,
    (fill === "patterned" ? tag("rect", { class: "plate", x: x + 4, y: y + 3, width: 15, height: 12, rx: 2 }) : "") + label + mark,
  );
}

/** Pages that have no place in the drawing are counted, not dropped. */
function hidden(scene: Scene, seat: Seat, vma: Vma, cells: ReadonlyMap<number, Cell> | undefined): string {
  const bands = scene.layout.bands.filter((band) => band.cut && band.end > vma.start && band.start < vma.end);
  if (bands.length === 0) return "";
  let missing = 0;
  for (const address of cells?.keys() ?? []) {
    if (address < vma.start || address >= vma.end) continue;
    if (!scene.layout.bandAt(address)?.slots.has(address)) missing += 1;
  }
  if (missing === 0) return "";
  return text(seat.x + scene.layout.box.width - 8, seat.place.bottom - 6, `+${count(missing)} pages`, { class: "soft", "text-anchor": "end" });
}

// --- links --------------------------------------------------------------------------

function seen(scene: Scene, row: Row, state: State): Crossing[] {
  const vma = row.vmas[0];
  return vma ? crossings(vma, state, scene.layout.order) : [];
}

function wire(scene: Scene, seat: Seat): string {
  const { layout, marks } = scene;
  const ends = seen(scene, seat.row, scene.state).map((one) => layout.lines.get(one.anonVma)?.x ?? 0);
  const until = Math.max(layout.labels + 6, ...ends);
  const marked = seat.row.vmas.some((vma) => marks.vmas.has(vma.id));
  return tag("line", { class: classes("wire", marked && "marked"), x1: seat.x + layout.box.width, x2: until, y1: seat.place.y, y2: seat.place.y });
}

function links(scene: Scene, seat: Seat): string {
  const { layout, state, before, marks } = scene;
  const { row, place } = seat;
  const now = seen(scene, row, state);
  const had = new Map(before ? oldCrossings(scene, row, before).map((one) => [one.anonVma, one]) : []);
  const drawn = now.map((one) => {
    const x = layout.lines.get(one.anonVma)?.x ?? 0;
    const old = had.get(one.anonVma);
    const changed = before !== null && old?.kind !== one.kind;
    const halo = marks.lines.has(one.anonVma) && row.vmas.some((vma) => marks.vmas.has(vma.id));
    return symbol(one, x, place.y, { changed, halo, chain: scene.chain || marks.selected === row.id, tree: scene.tree, says: titled(row.id, one) });
  });
  const here = new Set(now.map((one) => one.anonVma));
  const gone = [...had.values()].filter((one) => !here.has(one.anonVma) && layout.lines.has(one.anonVma));
  const ghosts = gone.map((one) => ghostLink(scene, one, place.y));
  return rowHead(scene, seat) + tag("g", {}, ghosts.join("") + drawn.join(""));
}

const ghostLink = ({ layout }: Scene, { anonVma: id }: Crossing, y: number): string =>
  tag("circle", { class: "ghost link", cx: layout.lines.get(id)?.x ?? 0, cy: y, r: 8 });

/** The links of a VMA that is gone. */
function goneLinks(scene: Scene, { row, place }: Seat): string {
  const had = scene.before ? seen(scene, row, scene.before) : [];
  return had.map((one) => ghostLink(scene, one, place.y)).join("");
}

function oldCrossings(scene: Scene, row: Row, before: State): Crossing[] {
  const process = before.processes.get(row.process);
  const vma = process?.vmas.find((one) => one.id === row.id);
  return vma ? seen(scene, { ...row, vmas: [vma] }, before) : [];
}

function rowHead(scene: Scene, { row, place, process }: Seat): string {
  const { layout, marks } = scene;
  const label = text(layout.labels, place.y - 5, rowLabel(process.name, row), { class: "row", "text-anchor": "end" });
  const visits = row.vmas.map((vma) => marks.visits.get(vma.id)).filter((one) => one !== undefined);
  const first = visits[0];
  if (!first) return label;
  const hits = visits.filter((one) => one.maps).length;
  const shown = visits.length > 1 ? `${visits.length} visits` : `${first.number} ${first.maps ? "✔" : "✘"}`;
  const width = visits.length > 1 ? 58 : 36;
  const says = visits.length > 1 ? `visited ${visits.length} times, ${hits} map the folio` : `visit ${first.number}: ${first.why}`;
  const pill = tag("rect", { x: layout.right + 6, y: place.y - 10, width, height: 20, rx: 10 });
  const badge = text(layout.right + 6 + width / 2, place.y + 4.5, shown, { "text-anchor": "middle" });
  return label + tag("g", { class: classes("visit", hits > 0 ? "hit" : "miss") }, title(says) + pill + badge);
}

// --- anon_vmas ------------------------------------------------------------------------

/** The lines of the anon_vmas, and from parents to children. */
function family({ layout, state, before }: Scene): string {
  const bottom = layout.bottom + 8;
  const drawn: string[] = [];
  for (const line of layout.lines.values()) {
    const one = state.anonVmas.get(line.id);
    const gone = !one && before?.anonVmas.has(line.id);
    if (!one && !gone) continue;
    const ghost = gone ? "ghost" : "";
    drawn.push(tag("line", { class: classes("stem", ghost), x1: line.x, x2: line.x, y1: line.top, y2: bottom }));
    drawn.push(tag("circle", { class: classes("node", ghost), cx: line.x, cy: line.top, r: 4 }));
    const parent = one && one.parent !== one.id ? layout.lines.get(one.parent) : undefined;
    if (parent) drawn.push(tag("path", { class: "branch", d: `M${parent.x},${parent.top} H${line.x} V${line.top}` }));
  }
  return drawn.join("");
}

function anonVmaLabel(one: AnonVma): string {
  const family = one.root === one.id ? "a root" : `child of ${one.parent}, root ${one.root}`;
  const linked = plural(one.tree.length, "VMA");
  const counts = one.degree ? `degree ${one.degree}` : `${counter(one.num_children)} children, own of ${plural(one.num_active_vmas, "VMA")}`;
  return `anon_vma ${one.id}: ${family}; ${one.refcount} references, ${counts}; ${linked} in its tree`;
}

function counterNames({ layout, state }: Scene): string {
  if (!layout.order.some((id) => state.anonVmas.has(id))) return "";
  const names = layout.counters.map(({ name, says }, index) =>
    tag("g", {}, title(says) + text(layout.labels, counterY(layout, index), name, { class: "soft", "text-anchor": "end" })),
  );
  return names.join("");
}

const counterY = (layout: Layout, index: number): number => layout.bottom + 14 + SIZE.counter * index + 14;

function anonVma(scene: Scene, id: string): string {
  const { layout, state, before, marks, diff, named } = scene;
  const line = layout.lines.get(id);
  const one = state.anonVmas.get(id);
  if (!line || (!one && !before?.anonVmas.has(id))) return "";
  const { x } = line;
  const pill = tag("rect", { class: "pill", x: x - 23, y: layout.top - 33, width: 46, height: 24, rx: 4 });
  const name = text(x, layout.top - 18, id, { class: "name", "text-anchor": "middle" });
  if (!one) return tag("g", { class: "anon-vma ghost", "aria-hidden": "true" }, pill + name);
  const change = diff.anonVmas.get(id);
  const swatch = tag("rect", { x: x - 22, y: layout.top - 14, width: 44, height: 4, ...scene.ink.fill(layout.order.indexOf(id)) });
  const relation = marks.anonVmas.get(id);
  const word = relation ? text(x, layout.top - 39, relation, { class: "relation", "text-anchor": "middle" }) : "";
  const written = name + word + (change ? star(x + 23, layout.top - 27) : "") + lock(scene, id, x) + counters(scene, one, x);
  const look = classes("anon-vma", change, named.has(id) && "named", marks.selected === id && "selected", relation !== undefined && "marked");
  const label = anonVmaLabel(one) + (change ? ` (${change})` : "");
  return button({ label, class: look, "data-select": id, "aria-pressed": String(marks.selected === id) }, pill + swatch, written);
}

function counters({ layout, before }: Scene, one: AnonVma, x: number): string {
  const old = before?.anonVmas.get(one.id);
  const drawn = layout.counters.map(({ of }, index) => {
    const changed = before !== null && (!old || of(old) !== of(one));
    const value = `${counter(of(one))}${changed ? " ✱" : ""}`;
    return text(x, counterY(layout, index), value, { class: classes("counter", changed && "changed"), "text-anchor": "middle" });
  });
  return drawn.join("");
}

function lock({ state, layout }: Scene, id: string, x: number): string {
  const held = state.locks.find((one) => new RegExp(`\\b${id}\\b`).test(one));
  if (held === undefined) return "";
  const y = layout.top - 5;
  const shape = tag("path", { d: `M${x - 5},${y + 2} h10 v8 h-10 z M${x - 3},${y + 2} v-2 a3,3 0 0 1 6,0 v2` });
  return tag("g", { class: "lock" }, title(`locked: ${held}`) + shape);
}

// SPDX-License-Identifier: GPL-2.0-only
// Time as lanes: one per process, with a mark for each call.

import { classes, tag, text, title } from "./svg";
import type { Point } from "./timeline";
import type { Track } from "./types";
import { clipped } from "./words";

const ROW = 20;

export interface Lanes {
  /** The names, which stay in sight, and the lanes. */
  markup: string;
  /** The part that moves: the current point, and the inner steps of its call. */
  cursor(points: readonly Point[], current: number, inner: boolean): string;
  x(call: number): number;
  y(process: string | null): number;
}

function processesOf(tracks: readonly Track[]): string[] {
  const names = tracks.flatMap((track) => track.moments.map((moment) => moment.process));
  return [...new Set(names)].filter((name): name is string => name !== null);
}

function mark(broken: boolean, errno: string | null, x: number, y: number): string {
  if (broken) return tag("path", { class: "bad", d: `M${x - 5},${y - 5} h10 v10 h-10 z` });
  if (errno !== null) return tag("path", { class: "warn", d: `M${x},${y - 6} l6,11 h-12 z` });
  return tag("circle", { class: "call", cx: x, cy: y, r: 4.5 });
}

/** What the tracks say of one call, as one mark. */
function callMark(tracks: readonly Track[], point: Point, x: number, y: ReadonlyMap<string, number>): string {
  const moments = tracks
    .map((track, number) => ({ series: track.series, moment: track.moments[point.moments[number] ?? 0] }))
    .filter(({ moment }) => moment?.call === point.call);
  const at = y.get(moments[0]?.moment?.process ?? "");
  if (at === undefined) return "";
  const broken = moments.filter(({ moment }) => moment && moment.violated.length > 0);
  const errno = moments.find(({ moment }) => moment?.errno)?.moment?.errno ?? null;
  const names = broken.map(({ series }) => series).join(" and ");
  const ended = `${errno === null ? "" : `: ${errno}`}${names ? `, breaks an invariant (${names})` : ""}`;
  return title(`${point.call + 1}: ${moments[0]?.moment?.text}${ended}`) + mark(broken.length > 0, errno, x, at);
}

const pitchOf = (calls: number): number => (calls <= 40 ? 30 : calls <= 150 ? 16 : 9);

export function lanes(tracks: readonly Track[], points: readonly Point[]): Lanes {
  const names = processesOf(tracks);
  const calls = Math.max(1, ...tracks.map((track) => track.calls.length));
  const pitch = pitchOf(calls);
  const x = (call: number): number => 4 + pitch * (call + 1);
  const width = x(calls) + 8;
  const height = ROW * names.length + 8;
  const y = new Map(names.map((name, index) => [name, index * ROW + ROW / 2 + 4] as const));
  const left = 24 + 8 * Math.max(2, ...names.map((name) => Math.min(name.length, 18)));
  const labels = [...y].map(([name, at]) => text(left - 12, at + 4, clipped(name, 18), { "text-anchor": "end" }));
  const rows = [...y.values()].map((at) => tag("line", { class: "lane", x1: 0, x2: width - 8, y1: at, y2: at }));
  const marks = points.map((point, index) =>
    point.inner > 0 ? "" : tag("g", { class: "mark", "data-go": index }, callMark(tracks, point, x(point.call), y)),
  );
  return {
    markup: drawing(left, height, "labels", labels.join("")) + drawing(width, height, null, rows.join("") + tag("g", { id: "cursor" }) + marks.join("")),
    cursor: (all, current, inner) => cursor(all, current, inner, { x, pitch, height }),
    x,
    y: (process) => y.get(process ?? "") ?? 0,
  };
}

const drawing = (width: number, height: number, look: string | null, content: string): string =>
  tag("svg", { class: look, width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, content);

interface Scale {
  x(call: number): number;
  pitch: number;
  height: number;
}

/** Where a point stands on the axis: inner steps lie before the end of their call. */
function position(points: readonly Point[], index: number, { x, pitch }: Scale): number {
  const point = points[index];
  if (!point) return 0;
  if (point.inner === 0) return x(point.call);
  const steps = points.filter((one) => one.call === point.call).length;
  return x(point.call) - pitch + (pitch * point.inner) / steps;
}

function cursor(points: readonly Point[], current: number, inner: boolean, scale: Scale): string {
  const call = points[current]?.call;
  const ticks = points.flatMap((point, index) => {
    if (!inner || point.call !== call || point.inner === 0) return [];
    const at = position(points, index, scale);
    return [tag("line", { class: classes("tick", index === current && "now"), x1: at, x2: at, y1: 2, y2: index === current ? scale.height - 2 : 10, "data-go": index })];
  });
  const at = position(points, current, scale);
  return tag("line", { class: "now", x1: at, x2: at, y1: 0, y2: scale.height }) + ticks.join("");
}

// SPDX-License-Identifier: GPL-2.0-only
// One axis of time for the tracks of a chapter: by call, and inside a call by inner step.

import type { Track } from "./types";

/** A point in time; inner 0 is the state after the call. */
export interface Point {
  call: number;
  inner: number;
  /** For each track the index of its moment. */
  moments: number[];
}

interface Call {
  inner: number[];
  after: number;
}

function byCall(track: Track): Map<number, Call> {
  const calls = new Map<number, Call>();
  track.moments.forEach((moment, index) => {
    const call = calls.get(moment.call) ?? { inner: [], after: index };
    if (moment.inner > 0) call.inner.push(index);
    call.after = index;
    calls.set(moment.call, call);
  });
  return calls;
}

/** The k-th inner step (1, 2, …) of a call or its end (0); a track that has fewer steps waits at its last. */
function at(calls: Map<number, Call>, call: number, inner: number, last: number): number {
  const found = calls.get(call);
  if (!found) return last;
  if (inner === 0) return found.after;
  return found.inner[Math.min(inner, found.inner.length) - 1] ?? found.after;
}

export function timeline(tracks: readonly Track[]): Point[] {
  const all = tracks.map(byCall);
  const calls = [...new Set(all.flatMap((one) => [...one.keys()]))].sort((a, b) => a - b);
  const last = tracks.map(() => 0);
  const points: Point[] = [];
  for (const call of calls) {
    const steps = Math.max(...all.map((one) => one.get(call)?.inner.length ?? 0));
    for (const inner of [...Array.from({ length: steps }, (_, k) => k + 1), 0]) {
      points.push({ call, inner, moments: all.map((one, n) => at(one, call, inner, last[n] ?? 0)) });
    }
    all.forEach((one, n) => (last[n] = one.get(call)?.after ?? last[n] ?? 0));
  }
  return points;
}

/** The points to stop at: all, or only those between calls. */
export function stops(points: readonly Point[], inner: boolean): number[] {
  return points.flatMap((point, index) => (inner || point.inner === 0 ? [index] : []));
}

/** The stop at or after a point: the end of its call when inner steps are left out. */
export function snap(points: readonly Point[], index: number, inner: boolean): number {
  let found = Math.max(0, Math.min(index, points.length - 1));
  while (!inner && points[found]?.inner !== 0 && found < points.length - 1) found += 1;
  return found;
}

/** The next stop in a direction; the same point at either end. */
export function step(points: readonly Point[], index: number, direction: 1 | -1, inner: boolean): number {
  for (let next = index + direction; next >= 0 && next < points.length; next += direction) {
    if (inner || points[next]?.inner === 0) return next;
  }
  return index;
}

/** The point after call number n (0 is before any call), or the first later one. */
export function afterCall(points: readonly Point[], number: number): number {
  const found = points.findIndex((point) => point.inner === 0 && point.call >= number - 1);
  return found < 0 ? points.length - 1 : found;
}

/** With what a moment of a track is compared: after a call, with the end of the call before it. */
export function earlier(track: Track, index: number): number | null {
  const inner = track.moments[index]?.inner ?? 0;
  if (inner > 0) return index > 0 ? index - 1 : null;
  for (let back = index - 1; back >= 0; back -= 1) {
    if (track.moments[back]?.inner === 0) return back;
  }
  return null;
}

// SPDX-License-Identifier: GPL-2.0-only
import assert from "node:assert/strict";
import { test } from "node:test";
import { afterCall, earlier, snap, step, stops, timeline } from "../src/timeline";
import { moment, track } from "./make";

const one = track([moment(-1, 0), moment(0, 1), moment(0, 2), moment(0, 0), moment(1, 1), moment(1, 0)]);
const other = track([moment(-1, 0), moment(0, 1), moment(0, 0), moment(1, 0)]);

test("the points of one track are its moments", () => {
  const points = timeline([one]);
  assert.deepEqual(points.map((point) => point.moments[0]), [0, 1, 2, 3, 4, 5]);
});

test("two tracks go in lockstep by call; the one with fewer inner steps waits", () => {
  const points = timeline([one, other]);
  assert.deepEqual(points.map((point) => [point.call, point.inner]), [[-1, 0], [0, 1], [0, 2], [0, 0], [1, 1], [1, 0]]);
  assert.deepEqual(points.map((point) => point.moments[1]), [0, 1, 1, 2, 3, 3]);
});

test("a track that ended early stays at its last moment", () => {
  const short = track([moment(-1, 0), moment(0, 0)]);
  assert.deepEqual(timeline([one, short]).map((point) => point.moments[1]), [0, 1, 1, 1, 1, 1]);
});

test("steps with and without inner steps", () => {
  const points = timeline([one]);
  assert.deepEqual(stops(points, false), [0, 3, 5]);
  assert.equal(step(points, 0, 1, true), 1);
  assert.equal(step(points, 0, 1, false), 3);
  assert.equal(step(points, 5, 1, true), 5);
  assert.equal(step(points, 4, -1, false), 3);
  assert.equal(snap(points, 1, false), 3);
  assert.equal(snap(points, 1, true), 1);
  assert.equal(snap(points, 99, true), 5);
});

test("jumps by the number of a call", () => {
  const points = timeline([one]);
  assert.equal(afterCall(points, 0), 0);
  assert.equal(afterCall(points, 1), 3);
  assert.equal(afterCall(points, 77), 5);
});

test("a call is compared with the end of the call before, an inner step with the step before", () => {
  assert.equal(earlier(one, 0), null);
  assert.equal(earlier(one, 2), 1);
  assert.equal(earlier(one, 3), 0);
  assert.equal(earlier(one, 5), 3);
});

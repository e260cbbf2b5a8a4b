// SPDX-License-Identifier: GPL-2.0-only
import assert from "node:assert/strict";
import { test } from "node:test";
import { family } from "../src/family";
import { rowsOf } from "../src/grouping";
import { layout, numbered } from "../src/layout";
import { history, states } from "../src/state";
import { anonVma, fixture, moment, process, track, vma } from "./make";

const all = { planned: null, folios: true };

test("parents stand before their children, families together", () => {
  const order = family([anonVma("av1", "av1"), anonVma("av2", "av2"), anonVma("av3", "av1"), anonVma("av4", "av3"), anonVma("av5", "av1")]);
  assert.deepEqual(order.map((one) => `${one.id}:${one.depth}`), ["av1:0", "av3:1", "av4:2", "av5:1", "av2:0"]);
});

test("an anon_vma that is linked below a parent later has its place there from the start", () => {
  assert.deepEqual(family([anonVma("av2", "av2"), anonVma("av1", "av1"), anonVma("av2", "av1")]).map((one) => one.id), ["av1", "av2"]);
});

test("a parent that is gone, and a ring of parents, end nowhere else", () => {
  assert.deepEqual(family([anonVma("av2", "av9")]).map((one) => one.depth), [0]);
  assert.equal(family([anonVma("av1", "av2"), anonVma("av2", "av1")]).length, 2);
});

test("numbers differ among those that meet, and are used again by others", () => {
  const numbers = numbered([["a", "b"], ["b", "c"], ["d"]]);
  assert.notEqual(numbers.get("a"), numbers.get("b"));
  assert.notEqual(numbers.get("b"), numbers.get("c"));
  assert.equal(numbers.get("c"), 0);
  assert.equal(numbers.get("d"), 0);
});

test("every VMA of every moment has a line of its own, inside the drawing", () => {
  for (const name of ["counterexample", "two-series", "pages"]) {
    for (const chapter of fixture(name).chapters) {
      for (const one of chapter.tracks) {
        const made = layout(history(one), all);
        for (const state of states(one.moments)) {
          const lines = [...state.processes.values()].flatMap((each) => rowsOf(each, null).map((row) => made.place(row)?.y));
          assert.ok(lines.every((y) => y !== undefined && y > made.top && y < made.bottom));
          assert.equal(new Set(lines).size, lines.length, `${chapter.title}: two VMAs on one line`);
        }
      }
    }
  }
});

test("a place does not depend on the moment", () => {
  const first = process("P0", [vma("vma1", 0, 4)]);
  const split = process("P0", [vma("vma1", 0, 2), vma("vma2", 2, 4)]);
  const made = layout(history(track([moment(-1, 0, { processes: { P0: first } }), moment(0, 0, { processes: { P0: split } })])), all);
  const [before] = rowsOf(first, null);
  const [after, second] = rowsOf(split, null);
  assert.ok(before && after && second);
  assert.equal(made.place(before)?.y, made.place(after)?.y);
  assert.equal(made.place(before)?.bottom, made.place(second)?.bottom);
  assert.ok((made.place(after)?.bottom ?? 0) <= (made.place(second)?.top ?? 0));
});

test("addresses that nobody has are a gap, and pages have places", () => {
  const one = track([moment(-1, 0, { processes: { P0: process("P0", [vma("vma1", 0, 2), vma("vma2", 100, 101)]) } })]);
  const made = layout(history(one), all);
  assert.deepEqual(made.bands.map((band) => band.gap), [false, true, false]);
  assert.deepEqual([...(made.bands[0]?.slots.keys() ?? [])], [0, 4096]);
  assert.equal(made.bandAt(100 * 4096)?.start, 100 * 4096);
  assert.equal(made.bandAt(4096 * 500), null);
});

test("an anon_vma that is named but was never seen still has a line", () => {
  const one = track([moment(-1, 0, { processes: { P0: process("P0", [vma("vma1", 0, 1, ["av7"])]) } })]);
  assert.ok(layout(history(one), all).lines.has("av7"));
});

// SPDX-License-Identifier: GPL-2.0-only
import assert from "node:assert/strict";
import { test } from "node:test";
import { drawnPart, headOfRun, plan, restrict, rowsOf, vmaCount } from "../src/grouping";
import { processes, sorted, trees } from "../src/overview";
import { EMPTY, apply, history, states } from "../src/state";
import { anonVma, large, moment, process, track, vma } from "./make";

const part = { kind: "process", name: "P0" } as const;
const all = history(large(1000));

test("neighbours with one chain are one row", () => {
  const planned = plan(restrict(all, part), new Map(), 100);
  assert.deepEqual([...planned.runs], [["vma0", 1000]]);
  assert.deepEqual([planned.drawn, planned.total], [1000, 1000]);
});

test("a run opens in steps, the rest stays one row", () => {
  const whole = restrict(all, part);
  const planned = plan(whole, new Map([["vma0", 100]]), 200);
  assert.deepEqual([...planned.runs], [["vma100", 900]]);
  assert.equal(planned.rowOf.get("vma99"), "vma99");
  assert.equal(headOfRun(whole, "vma100"), "vma0");
  const [only] = all.processes;
  assert.ok(only);
  assert.equal(rowsOf(only, planned).length, 101);
});

test("what exceeds the limit is counted", () => {
  const vmas = Array.from({ length: 30 }, (_, index) => vma(`vma${index}`, index, index + 1, [`av${index}`]));
  const planned = plan(history(track([moment(-1, 0, { processes: { P0: process("P0", vmas) } })])), new Map(), 10);
  assert.deepEqual([planned.drawn, planned.total], [10, 30]);
});

test("another chain, or another moment's chain, ends a run", () => {
  const before = ["vma1", "vma2", "vma3", "vma4"].map((id, index) => vma(id, index, index + 1, ["av1"]));
  const after = before.map((one) => (one.id === "vma4" ? { ...one, chain: ["av2"] } : one));
  const found = history(track([moment(-1, 0, { processes: { P0: process("P0", before) } }), moment(0, 0, { processes: { P0: process("P0", after) } })]));
  assert.deepEqual([...plan(found, new Map(), 100).runs], [["vma1", 3]]);
});

test("a tree has the VMAs that are linked to it, and the anon_vmas that those need", () => {
  const one = track([moment(-1, 0, {
    processes: { P0: process("P0", [vma("vma1", 0, 1, ["av1"]), vma("vma2", 5, 6, ["av9"])]), P1: process("P1", [vma("vma3", 0, 1, ["av2", "av1"])]) },
    anon_vmas: { av1: anonVma("av1", "av1", ["vma1", "vma3"]), av2: anonVma("av2", "av1", ["vma3"]), av9: anonVma("av9", "av9", ["vma2"]) },
  })]);
  const found = restrict(history(one), { kind: "tree", name: "av1" });
  assert.equal(vmaCount(found), 2);
  assert.deepEqual(found.anonVmas.map((each) => each.id), ["av1", "av2"]);
  const shown = drawnPart(found, { rowOf: new Map([["vma3", "vma3"]]), runs: new Map(), drawn: 1, total: 2 });
  assert.deepEqual(shown.processes.map((each) => each.name), ["P1"]);
  assert.deepEqual(shown.anonVmas.map((each) => each.id), ["av1", "av2"]);
});

test("the overview counts processes and trees, and sorts them", () => {
  const [state] = states(large(5).moments);
  assert.ok(state);
  assert.deepEqual(processes(state), [{ name: "P0", vmas: 5, avcs: 5, anonVmas: 1, longest: 1 }]);
  assert.deepEqual(trees(state), [{ name: "av1", vmas: 5, avcs: 5, anonVmas: 1, longest: 1 }]);
  assert.deepEqual(trees(apply(EMPTY, {})), []);
  const rows = ["P10", "P2"].map((name, index) => ({ name, vmas: index, avcs: 0, anonVmas: 0, longest: 0 }));
  assert.deepEqual(sorted(rows, { key: "name", down: false }).map((row) => row.name), ["P2", "P10"]);
  assert.deepEqual(sorted(rows, { key: "vmas", down: true }).map((row) => row.name), ["P2", "P10"]);
});

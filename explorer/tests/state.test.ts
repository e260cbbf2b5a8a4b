// SPDX-License-Identifier: GPL-2.0-only
import assert from "node:assert/strict";
import { test } from "node:test";
import { diff } from "../src/diff";
import { EMPTY, apply, counts, history, owners, states, vmasOf } from "../src/state";
import { anonVma, fixture, moment, process, track, vma } from "./make";

const fork = track([
  moment(-1, 0, { processes: { P0: process("P0", [vma("vma1", 0, 2, ["av1"])]) }, anon_vmas: { av1: anonVma("av1", "av1", ["vma1"]) } }),
  moment(0, 0, {
    processes: { P1: process("P1", [vma("vma2", 0, 2, ["av2", "av1"])]) },
    anon_vmas: { av1: anonVma("av1", "av1", ["vma1", "vma2"]), av2: anonVma("av2", "av1", ["vma2"]) },
    locks: ["mmap_lock of mm1, write"],
  }),
  moment(1, 0, { processes: { P0: null }, locks: [] }),
]);

test("a patch replaces, adds and removes, and leaves the rest as it is", () => {
  const [, forked, left] = states(fork.moments);
  assert.deepEqual([...(forked?.processes.keys() ?? [])], ["P0", "P1"]);
  assert.deepEqual(forked?.locks, ["mmap_lock of mm1, write"]);
  assert.deepEqual([...(left?.processes.keys() ?? [])], ["P1"]);
  assert.equal(left?.anonVmas, forked?.anonVmas);
  assert.deepEqual(left?.locks, []);
});

test("a patch does not change the state that it is applied to", () => {
  apply(EMPTY, fork.moments[0]?.patch ?? {});
  assert.equal(EMPTY.processes.size, 0);
});

test("counts are those of the state", () => {
  const [, forked] = states(fork.moments);
  assert.ok(forked);
  assert.deepEqual(counts(forked), { vmas: 2, anonVmas: 2, avcs: 3, folios: 0, longest: 2 });
});

test("tasks that share an address space have their VMAs once", () => {
  const shared = [vma("vma1", 0, 1)];
  const state = apply(EMPTY, { processes: { P0: { name: "P0", mm: "mm1", vmas: shared }, P1: { name: "P1", mm: "mm1", vmas: shared } } });
  assert.deepEqual([...owners(state).values()].map((one) => one.name), ["P0"]);
  assert.equal(vmasOf(state).get("vma1")?.process.name, "P0");
});

test("a history has every version of every object", () => {
  assert.deepEqual(history(fork).anonVmas.map((one) => one.id), ["av1", "av1", "av2"]);
});

test("what differs between two states", () => {
  const [before, forked] = states(fork.moments);
  assert.ok(before && forked);
  const found = diff(forked, before);
  assert.deepEqual([...found.processes], ["P1"]);
  assert.deepEqual([...found.vmas], [["vma2", "new"]]);
  assert.deepEqual([...found.anonVmas], [["av1", "changed"], ["av2", "new"]]);
  assert.equal(diff(before, null).vmas.size, 0);
});

test("every fixture applies, and no state names an object that a patch forgot", () => {
  for (const name of ["counterexample", "two-series", "pages"]) {
    for (const chapter of fixture(name).chapters) {
      for (const one of chapter.tracks) {
        const all = states(one.moments);
        assert.equal(all.length, one.moments.length);
        for (const state of all) {
          for (const folio of state.folios.values()) assert.ok(folio.mapping === null || state.anonVmas.has(folio.mapping));
        }
      }
    }
  }
});

// SPDX-License-Identifier: GPL-2.0-only
import assert from "node:assert/strict";
import { test } from "node:test";
import { crossings } from "../src/links";
import { marks } from "../src/marks";
import { EMPTY, apply } from "../src/state";
import { named, rights } from "../src/words";
import { anonVma, process, vma } from "./make";

const child = vma("vma2", 0, 1, ["av2", "av1"]);
const state = apply(EMPTY, {
  processes: { P0: process("P0", [vma("vma1", 0, 1, ["av1"])]), P1: process("P1", [child]) },
  anon_vmas: { av1: anonVma("av1", "av1", ["vma1", "vma2"]), av2: anonVma("av2", "av1", ["vma2"]), av3: anonVma("av3", "av3", ["vma2"]) },
});
const order = ["av1", "av2", "av3"];

const kinds = (one: typeof child): string[] => crossings(one, state, order).map((each) => `${each.anonVma} ${each.kind}`);

test("own, linked and stray crossings, with their places", () => {
  assert.deepEqual(kinds(child), ["av1 linked", "av2 own", "av3 stray"]);
  const [first] = crossings(child, state, order);
  assert.deepEqual([first?.chain, first?.tree], [2, 2]);
});

test("on the list and not in the tree is pending; own and not on the list is broken", () => {
  assert.deepEqual(kinds(vma("vma9", 0, 1, ["av2", "av1"])), ["av1 pending", "av2 pending"]);
  assert.deepEqual(kinds(vma("vma9", 0, 1, [], { anon_vma: "av1" })), ["av1 broken"]);
});

test("a freed anon_vma is broken, whoever names it", () => {
  assert.deepEqual(crossings(vma("vma9", 0, 1, ["av8"]), state, ["av8"]).map((one) => one.kind), ["broken"]);
});

test("what a selection marks", () => {
  assert.deepEqual([...marks("av1", state, null).anonVmas], [["av2", "child"], ["av1", ""]]);
  assert.deepEqual([...marks("vma2", state, null).anonVmas], [["av2", "own"], ["av1", "link 2"]]);
  const walk = [{ vma: "vma1", process: "P0", address: 0, maps: true, why: "" }, { vma: "vma2", process: "P1", address: 0, maps: false, why: "" }];
  const folio = { id: "folio1", mapping: "av1", index: 0, mapcount: 1, exclusive: true, ptes: [], order: 0, pins: 0, ksm: null };
  const found = marks("folio1", apply(state, { folios: { folio1: folio } }), { title: "", lines: [], walk });
  assert.deepEqual([...found.visits].map(([id, visit]) => [id, visit.number, visit.maps]), [["vma1", 1, true], ["vma2", 2, false]]);
});

test("rights as in /proc/PID/maps, and the objects that a text names", () => {
  assert.equal(rights("rd wr ac"), "rw-");
  assert.equal(rights("ac"), "---");
  assert.deepEqual([...named("visit vma12 at 0x7f00 of av3")], ["vma12", "av3"]);
});

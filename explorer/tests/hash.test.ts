// SPDX-License-Identifier: GPL-2.0-only
import assert from "node:assert/strict";
import { test } from "node:test";
import { answersAt } from "../src/answers";
import type { Where } from "../src/hash";
import { format, parse } from "../src/hash";
import { linked } from "../src/html";
import { action } from "../src/keys";
import { moment } from "./make";

const where: Where = {
  chapter: 2, point: 17, inner: true, chain: false, tree: true, folios: true, selection: "folio3", part: { kind: "process", name: "bash (12) & co" }, theme: "dark",
};

test("a permalink says all and is read back", () => {
  assert.deepEqual(parse(format(where)), where);
  const plain: Where = { ...where, selection: null, part: null, theme: null };
  assert.deepEqual({ ...plain, ...parse(format(plain)) }, plain);
});

test("nonsense is left out", () => {
  assert.deepEqual(parse(""), {});
  assert.deepEqual(parse("#c=0&m=-3&th=pink&p=x"), { selection: null, part: null });
});

const press = (key: string, more = {}) => ({ key, shiftKey: false, ctrlKey: false, altKey: false, metaKey: false, ...more });

test("keys", () => {
  assert.equal(action(press("ArrowRight"), "other"), "next");
  assert.equal(action(press("ArrowRight", { shiftKey: true }), "object"), "next-call");
  assert.equal(action(press("ArrowRight"), "typing"), null);
  assert.equal(action(press("c", { ctrlKey: true }), "other"), null);
  assert.equal(action(press("Enter"), "object"), "press");
  assert.equal(action(press("Enter"), "other"), null);
  assert.equal(action(press("?", { shiftKey: true }), "other"), "help");
});

test("texts are escaped, and the names of objects are buttons", () => {
  const markup = linked("av1 <b> folio22");
  assert.match(markup, /data-select="av1"/);
  assert.match(markup, /data-select="folio22"/);
  assert.doesNotMatch(markup, /<b>/);
});

test("inside a call the answers are those of the last whole call", () => {
  const answers = { av1: { title: "av1", lines: [] } };
  const moments = [moment(-1, 0, {}, { answers }), moment(0, 1), moment(0, 0, {}, { answers: {} })];
  assert.deepEqual(answersAt(moments, 1), { answers, old: true });
  assert.deepEqual(answersAt(moments, 2), { answers: {}, old: false });
  assert.equal(answersAt([moment(0, 1)], 0), null);
});

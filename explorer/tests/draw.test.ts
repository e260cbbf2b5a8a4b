// SPDX-License-Identifier: GPL-2.0-only
import assert from "node:assert/strict";
import { test } from "node:test";
import { cellsOf } from "../src/cells";
import { ChapterView } from "../src/chapter";
import { diff } from "../src/diff";
import type { Drawing } from "../src/draw";
import { draw } from "../src/draw";
import { UNMARKED } from "../src/marks";
import { vmasOf } from "../src/state";
import { earlier } from "../src/timeline";
import { fixture, large } from "./make";

function drawings(view: ChapterView, track: number): { drawing: Drawing; point: number }[] {
  const one = view.tracks[track];
  assert.ok(one);
  return one.states.map((state, point) => {
    const back = earlier(one.track, point);
    const before = back === null ? null : (one.states[back] ?? null);
    const { layout, planned } = one.picture(one.large ? { kind: "process", name: "P0" } : null, true);
    const drawing = draw({
      prefix: "test", label: "", layout, planned, state, before, diff: diff(state, before), chain: true, tree: true, folios: true,
      marks: UNMARKED, named: new Set(),
    });
    return { drawing, point };
  });
}

test("every moment of the fixtures is drawn: each VMA, each anon_vma, each mapped page", () => {
  for (const name of ["counterexample", "two-series", "pages"]) {
    for (const chapter of fixture(name).chapters) {
      const view = new ChapterView(chapter);
      view.tracks.forEach((one, track) => {
        for (const { drawing, point } of drawings(view, track)) {
          const markup = drawing.parts.join("");
          const state = one.states[point];
          assert.ok(state);
          assert.doesNotMatch(markup, /NaN|undefined|Infinity/);
          for (const id of [...vmasOf(state).keys(), ...state.anonVmas.keys()]) assert.ok(markup.includes(`data-select="${id}"`), `${chapter.title}: no ${id}`);
          const drawn = markup.match(/class="page (folio|swap|guard)/g)?.length ?? 0;
          const there = [...cellsOf(state).values()].reduce((sum, cells) => sum + cells.size, 0);
          assert.equal(drawn, there, `${chapter.title}: pages at ${point}`);
        }
      });
    }
  }
});

test("the number of parts stays the same while only pages and links change", () => {
  const [chapter] = fixture("counterexample").chapters;
  assert.ok(chapter);
  const all = drawings(new ChapterView(chapter), 0);
  const sizes = new Set(all.slice(-3).map(({ drawing }) => `${drawing.width}x${drawing.height}:${drawing.parts.length}`));
  assert.equal(sizes.size, 1);
});

test("a run of a large process is one row, and opens", () => {
  const view = new ChapterView({ title: "", text: [], tracks: [large(10_000)] });
  const [one] = view.tracks;
  assert.ok(one?.large);
  assert.ok(drawings(view, 0)[0]?.drawing.parts.join("").includes("× 10,000 VMAs"));
  one.open({ kind: "process", name: "P0" }, "vma0");
  const opened = drawings(view, 0)[0]?.drawing.parts.join("") ?? "";
  assert.ok(opened.includes("× 9,900 VMAs"));
  assert.ok(opened.includes('data-select="vma99"'));
});

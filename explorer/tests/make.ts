// SPDX-License-Identifier: GPL-2.0-only
// Small documents and objects for the tests.

import type { AnonVma, Document, Moment, Patch, Process, Track, Vma } from "../src/types";
import { readFileSync } from "node:fs";

export const fixture = (name: string): Document =>
  JSON.parse(readFileSync(new URL(`../../fixtures/${name}.json`, import.meta.url), "utf8")) as Document;

export function vma(id: string, start: number, end: number, chain: string[] = [], more: Partial<Vma> = {}): Vma {
  return {
    id, start: start * 4096, end: end * 4096, pgoff: start, anon_pgoff: start, flags: "rd wr", file: null,
    anon_vma: chain[0] ?? null, chain, ...more,
  };
}

export const process = (name: string, vmas: Vma[]): Process => ({ name, mm: `mm-${name}`, vmas });

export function anonVma(id: string, parent: string, tree: string[] = [], root = parent): AnonVma {
  return { id, root, parent, refcount: 1, num_children: 0, num_active_vmas: 1, degree: 0, tree };
}

export function moment(call: number, inner: number, patch: Patch = {}, more: Partial<Moment> = {}): Moment {
  return {
    call, inner, text: `call ${call}`, verb: null, process: "P0", fail: null, errno: null, note: null, words: [],
    violated: [], patch, answers: null, ...more,
  };
}

export const track = (moments: Moment[]): Track => ({ series: "v7.0", kernel: null, calls: [], moments });

/** A process with so many VMAs of one chain, one page each, every other page. */
export function large(number: number): Track {
  const vmas = Array.from({ length: number }, (_, index) => vma(`vma${index}`, 2 * index, 2 * index + 1, ["av1"]));
  const one = anonVma("av1", "av1", vmas.map((each) => each.id));
  return track([moment(-1, 0, { processes: { P0: process("P0", vmas) }, anon_vmas: { av1: one } })]);
}

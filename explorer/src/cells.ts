// SPDX-License-Identifier: GPL-2.0-only
// What stands at the pages of an address space: folios, swap entries and guards.

import type { State } from "./state";
import type { Folio, Swap } from "./types";
import { hex, plural, shortId } from "./words";

export interface Cell {
  kind: "folio" | "swap" | "guard";
  /** What can be selected: the folio. */
  folio: string | null;
  mapping: string | null;
  label: string;
  exclusive: boolean;
  says(): string;
}

type Cells = ReadonlyMap<string, ReadonlyMap<number, Cell>>;

const known = new WeakMap<State["folios"], { swap: State["swap"]; guards: State["guards"]; cells: Cells }>();

function folioSays(folio: Folio, address: number, writable: boolean): string {
  const names = folio.ksm !== null ? `a KSM page with content ${folio.ksm}` : `names ${folio.mapping ?? "nothing"}`;
  const shared = folio.exclusive ? "exclusive" : `mapped ${folio.mapcount === 1 ? "once" : `${folio.mapcount} times`}, not exclusive`;
  const pinned = folio.pins > 0 ? `, pinned ${folio.pins}` : "";
  return `${folio.id} at ${hex(address)}: ${names}, ${shared}, ${writable ? "writable" : "read-only"}${pinned}`;
}

function swapSays(slot: Swap, address: number): string {
  const cached = slot.folio === null ? "" : `, ${slot.folio} is in the swap cache`;
  return `${slot.id}: swapped out at ${hex(address)}, ${plural(slot.count, "entry", "entries")} for the slot${cached}`;
}

function folioLabel(folio: Folio, pages: number): string {
  const number = shortId(folio.id);
  return pages > 1 ? `${number}\u00d7${pages}` : number;
}

/** By mm and address in bytes. */
export function cellsOf(state: State): Cells {
  const { folios, swap, guards } = state;
  const last = known.get(folios);
  if (last && last.swap === swap && last.guards === guards) return last.cells;
  const cells = makeCells(state);
  known.set(folios, { swap, guards, cells });
  return cells;
}

function makeCells(state: State): Cells {
  const found = new Map<string, Map<number, Cell>>();
  const put = (mm: string, address: number, cell: Cell): void => {
    const at = found.get(mm);
    if (at) at.set(address, cell);
    else found.set(mm, new Map([[address, cell]]));
  };
  for (const { mm, address } of state.guards) {
    put(mm, address, { kind: "guard", folio: null, mapping: null, label: "", exclusive: true, says: () => `guard page at ${hex(address)}` });
  }
  for (const slot of state.swap.values()) {
    for (const { mm, address, exclusive } of slot.ptes) {
      const says = (): string => swapSays(slot, address);
      put(mm, address, { kind: "swap", folio: slot.folio, mapping: null, label: shortId(slot.id), exclusive, says });
    }
  }
  for (const folio of state.folios.values()) {
    const { id, mapping, exclusive } = folio;
    for (const { mm, address, writable, pages } of folio.ptes) {
      const says = (): string => folioSays(folio, address, writable);
      put(mm, address, { kind: "folio", folio: id, mapping, label: folioLabel(folio, pages), exclusive, says });
    }
  }
  return found;
}

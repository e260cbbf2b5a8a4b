// SPDX-License-Identifier: GPL-2.0-only
// The overview on the page: its lists, their order and the filter.

import type { Key, Listing, Order } from "./overview";
import { listing, processes, trees } from "./overview";
import type { Part } from "./grouping";
import type { State } from "./state";
import { counts } from "./state";
import { escape, tag } from "./svg";
import { plural } from "./words";

interface Shown {
  series: string;
  state: State;
}

type Kind = Part["kind"];

export class Overview {
  filter = "";
  private most = 200;
  private readonly orders: Record<Kind, Order> = {
    process: { key: "vmas", down: true },
    tree: { key: "vmas", down: true },
  };
  private host: HTMLElement | null = null;
  private shown: Shown[] = [];
  private readonly summaries = new WeakMap<State, Record<Kind, Listing["rows"]>>();

  show(host: HTMLElement, shown: Shown[]): void {
    this.shown = shown;
    if (this.host !== host || !host.querySelector("[data-filter]")) {
      this.host = host;
      host.innerHTML = frame(this.filter);
    }
    this.refresh();
  }

  hide(): void {
    this.host = null;
  }

  sort(by: string): void {
    const [kind, key] = by.split(":") as [Kind, Key];
    const old = this.orders[kind];
    this.orders[kind] = { key, down: old.key === key ? !old.down : key !== "name" };
  }

  more(): void {
    this.most += 200;
  }

  refresh(): void {
    const box = this.host?.querySelector("[data-lists]");
    if (box) box.innerHTML = this.shown.map((one) => this.lists(one)).join("");
  }

  private rows(state: State): Record<Kind, Listing["rows"]> {
    const known = this.summaries.get(state);
    if (known) return known;
    const made = { process: processes(state), tree: trees(state) };
    this.summaries.set(state, made);
    return made;
  }

  private lists({ series, state }: Shown): string {
    const rows = this.rows(state);
    const total = counts(state);
    const head = tag("h3", {}, escape(series));
    const says = `${plural(total.vmas, "VMA")}, ${plural(total.avcs, "AVC")} and ${plural(total.anonVmas, "anon_vma")} at this moment; none is drawn until you choose a process or a tree.`;
    const one = (kind: Kind): string => listing({ kind, rows: rows[kind], order: this.orders[kind], filter: this.filter, most: this.most });
    return head + tag("p", { "data-testid": "drawn" }, says) + tag("div", { class: "lists" }, one("process") + one("tree"));
  }
}

function frame(filter: string): string {
  const input = `<input type="search" id="filter" data-filter value="${escape(filter)}" autocomplete="off">`;
  return tag("p", {}, tag("label", {}, `Filter by name ${input}`)) + tag("div", { "data-lists": "" });
}

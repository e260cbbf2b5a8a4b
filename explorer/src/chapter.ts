// SPDX-License-Identifier: GPL-2.0-only
// A chapter made ready: states, layouts and one axis of time.

import type { Part, Plan } from "./grouping";
import { drawnPart, headOfRun, plan, restrict, STEP, vmaCount } from "./grouping";
import type { Lanes } from "./lanes";
import { lanes } from "./lanes";
import type { Layout } from "./layout";
import { layout } from "./layout";
import type { CallLine } from "./panels";
import type { History, State } from "./state";
import { history, states } from "./state";
import type { Point } from "./timeline";
import { timeline } from "./timeline";
import type { Chapter, Moment, Track } from "./types";

export const LARGE = 250;

/** What is drawn of a track: its geometry, and for a part of a large one which VMAs stand in which row. */
export interface Picture {
  layout: Layout;
  planned: Plan | null;
}

export class TrackView {
  readonly track: Track;
  readonly states: readonly State[];
  readonly large: boolean;
  private readonly history: History;
  private part: { key: string; part: History } | null = null;
  private readonly opened = new Map<string, number>();
  private limit = STEP;
  private readonly pictures = new Map<string, Picture>();

  constructor(track: Track) {
    this.track = track;
    this.states = states(track.moments);
    this.history = history(track);
    this.large = vmaCount(this.history) > LARGE;
  }

  picture(part: Part | null, folios: boolean): Picture {
    const key = `${part?.kind}:${part?.name}:${folios}`;
    const known = this.pictures.get(key);
    if (known) return known;
    const made = part ? this.partial(part, folios) : { layout: layout(this.history, { planned: null, folios }), planned: null };
    this.pictures.set(key, made);
    return made;
  }

  /** Draws 100 more VMAs of a run one by one. */
  open(part: Part, row: string): void {
    const head = headOfRun(this.restricted(part), row);
    const rows = this.opened.get(head) ?? 0;
    this.opened.set(head, rows + STEP);
    this.limit += STEP;
    this.pictures.clear();
  }

  /** Draws 100 more rows. */
  more(): void {
    this.limit += STEP;
    this.pictures.clear();
  }

  private restricted(part: Part): History {
    const key = `${part.kind}:${part.name}`;
    if (this.part?.key !== key) {
      this.part = { key, part: restrict(this.history, part) };
      this.limit = STEP;
      this.opened.clear();
    }
    return this.part.part;
  }

  private partial(part: Part, folios: boolean): Picture {
    const whole = this.restricted(part);
    const planned = plan(whole, this.opened, this.limit);
    return { layout: layout(drawnPart(whole, planned), { planned, folios }), planned };
  }
}

export class ChapterView {
  readonly chapter: Chapter;
  readonly tracks: readonly TrackView[];
  readonly points: readonly Point[];
  readonly lanes: Lanes;

  constructor(chapter: Chapter) {
    this.chapter = chapter;
    this.tracks = chapter.tracks.map((track) => new TrackView(track));
    this.points = timeline(chapter.tracks);
    this.lanes = lanes(chapter.tracks, this.points);
  }

  /** The moment of a track at a point. */
  moment(track: number, point: number): Moment {
    const found = this.chapter.tracks[track]?.moments[this.index(track, point)];
    if (!found) throw new Error(`track ${track} has no moment at ${point}`);
    return found;
  }

  index(track: number, point: number): number {
    return this.points[point]?.moments[track] ?? 0;
  }

  /** Whether some inner step has a note, which would be missed without inner steps. */
  get notesInside(): boolean {
    return this.chapter.tracks.some((track) => track.moments.some((moment) => moment.inner > 0 && moment.note !== null));
  }

  /** What can occur in the drawings, and so has its symbol in the legend. */
  get occurs(): { pending: boolean; broken: boolean; swap: boolean; guards: boolean } {
    const moments = this.chapter.tracks.flatMap((track) => track.moments);
    const broken = moments.some((moment) => moment.violated.length > 0);
    return {
      pending: broken || moments.some((moment) => moment.inner > 0),
      broken,
      swap: moments.some((moment) => Object.keys(moment.patch.swap ?? {}).length > 0),
      guards: moments.some((moment) => (moment.patch.guards ?? []).length > 0),
    };
  }

  calls(): CallLine[] {
    return this.points.flatMap((point, index) => {
      if (point.inner > 0) return [];
      const moments = this.tracks.map((_, track) => this.moment(track, index)).filter((moment) => moment.call === point.call);
      return [{
        point: index,
        call: point.call + 1,
        text: moments[0]?.text ?? "",
        broken: moments.some((moment) => moment.violated.length > 0),
        errno: moments.find((moment) => moment.errno !== null)?.errno ?? null,
        fail: moments.find((moment) => moment.fail !== null)?.fail ?? null,
      }];
    });
  }
}

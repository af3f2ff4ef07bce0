// All that is computed once from a trace, and what changes while a person looks at it.

import { Camera } from "./camera";
import { familiesOf } from "./families";
import { lanesOf, type Lanes } from "./lanes";
import { layoutOf, trackRows, type Layout, type TrackRows } from "./layout";
import type { Range, Trace } from "./model";
import { shortName } from "./names";
import { indexRows, RowIndex } from "./rows";

/** What is chosen: at most one of these. `request` counts into the spans, `event` into the events. */
export type Selection =
  | { kind: "none" }
  | { kind: "request"; request: number }
  | { kind: "event"; event: number }
  | { kind: "range"; range: Range };

/** What lies under the pointer. */
export type Target =
  | { kind: "request"; request: number }
  | { kind: "event"; event: number }
  | { kind: "memory"; memory: number; time: number };

export interface Search {
  text: string;
  index: RowIndex;
  /** Requests whose id matches, in order of time. */
  requests: number[];
  requestSet: Set<number>;
  count: number;
  totalUs: number;
  /** Which match was jumped to, by its place in time; null before the first jump. */
  current: { start: number; event: number } | null;
}

export class Scene {
  readonly camera: Camera;
  readonly lanes: Lanes;
  readonly tracks: TrackRows;
  readonly index: RowIndex;
  readonly family: (event: number) => number;
  readonly folded = new Set<string>();
  private readonly labels: string[] = [];
  layout: Layout;
  selection: Selection = { kind: "none" };
  /** The events of what is selected; null when nothing is to stand out. */
  lit: RowIndex | null = null;
  litRequests: Set<number> | null = null;
  search: Search | null = null;
  hover: Target | null = null;

  constructor(readonly trace: Trace) {
    const { header, events } = trace;
    this.camera = new Camera(extentOf(trace));
    this.lanes = lanesOf(header.spans);
    this.tracks = trackRows(header.tracks.length, events.track, events.depth);
    this.index = indexRows(events, this.tracks.base, this.tracks.rows);
    const { ofName, ofCategory } = familiesOf(header);
    this.family = (event) => {
      const category = ofCategory[events.category[event]!]!;
      return category >= 0 ? category : ofName[events.name[event]!]!;
    };
    this.foldPython();
    this.layout = this.lay();
  }

  nameOf(event: number): string {
    return this.trace.header.names[this.trace.events.name[event]!] ?? "?";
  }

  /** A name short enough for a bar. */
  labelOf(event: number): string {
    const id = this.trace.events.name[event]!;
    return (this.labels[id] ??= shortName(this.nameOf(event)));
  }

  detailOf(event: number): string {
    return this.trace.header.details[this.trace.events.detail[event]!] ?? "";
  }

  rangeOf(event: number): Range {
    const start = this.trace.events.start[event]!;
    return { start, end: start + this.trace.events.duration[event]! };
  }

  fold(key: string): void {
    if (!this.folded.delete(key)) this.folded.add(key);
    this.layout = this.lay();
  }

  private lay(): Layout {
    return layoutOf(this.trace.header, this.lanes.lanes.length, this.tracks, this.folded);
  }

  /** Python functions nest deeply: their rows are low until a person opens them. */
  private foldPython(): void {
    const python = this.trace.header.categories.indexOf("python");
    const first = new Int32Array(this.tracks.base.length).fill(-1);
    const { track, category, count } = this.trace.events;
    for (let i = 0; i < count; i++) if (first[track[i]!]! < 0) first[track[i]!] = category[i]!;
    first.forEach((one, i) => one === python && this.folded.add(`track ${i}`));
  }
}

/** From the first thing in a trace to the end of the last; before and after them there is nothing to see. */
function extentOf({ header, events }: Trace): Range {
  let [start, end] = [Infinity, -Infinity];
  const include = (from: number, lengthUs: number): void => {
    start = Math.min(start, from);
    end = Math.max(end, from + lengthUs);
  };
  for (const span of header.spans) include(span.start_us, span.total_us);
  for (let i = 0; i < events.count; i++) include(events.start[i]!, events.duration[i]!);
  return start < end ? { start, end } : { start: 0, end: Math.max(1, header.duration_us) };
}

// Requests that overlap lie in lanes of their own. Pure.

import type { Range, Span } from "./model";
import { lowerBound } from "./rows";

/** The requests of each lane in order of time; each request goes into the first lane that is free. */
export interface Lanes {
  lanes: number[][];
  starts: Float64Array[];
}

export function lanesOf(spans: Span[]): Lanes {
  const lanes: number[][] = [];
  const free: number[] = [];
  spans.forEach((span, i) => {
    let lane = free.findIndex((end) => end <= span.start_us);
    if (lane < 0) lane = lanes.push([]) - 1;
    lanes[lane]!.push(i);
    free[lane] = span.start_us + span.total_us;
  });
  return { lanes, starts: lanes.map((lane) => Float64Array.from(lane, (i) => spans[i]!.start_us)) };
}

/** The requests of a lane that are visible. */
export function visibleSpans(lanes: Lanes, lane: number, view: Range): number[] {
  const starts = lanes.starts[lane]!;
  const from = lowerBound(starts, view.start, 0, starts.length);
  const to = lowerBound(starts, view.end, from, starts.length);
  return lanes.lanes[lane]!.slice(Math.max(0, from - 1), to);
}

/** The request of a lane at `time`, or the nearest at most `reach` away; -1 if there is none. */
export function spanAt(lanes: Lanes, spans: Span[], lane: number, time: number, reach: number): number {
  let best = -1;
  let distance = reach;
  for (const i of visibleSpans(lanes, lane, { start: time - reach, end: time + reach })) {
    const span = spans[i]!;
    const away = Math.max(0, span.start_us - time, time - span.start_us - span.total_us);
    if (away <= distance) [best, distance] = [i, away];
  }
  return best;
}

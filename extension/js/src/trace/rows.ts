// Events sorted into rows (one for each depth of each track), so that any range of time is found by halving.

import type { Events, Range } from "./model";

/** For each row its events in order of time, with running sums of how long they are. */
export class RowIndex {
  constructor(
    readonly first: Int32Array,
    readonly event: Int32Array,
    readonly start: Float64Array,
    readonly end: Float64Array,
    readonly busy: Float64Array,
  ) {}

  get rows(): number {
    return this.first.length - 1;
  }

  /** The position of the first event of a row that ends after `time`. */
  from(row: number, time: number): number {
    const low = this.first[row]!;
    const at = lowerBound(this.start, time, low, this.first[row + 1]!);
    return at > low && this.end[at - 1]! > time ? at - 1 : at;
  }

  /** The position of the first event from `low` on that starts at `time` or later. */
  startingAt(row: number, time: number, low: number): number {
    const high = this.first[row + 1]!;
    for (let step = 0; step < 8; step++, low++) if (low >= high || this.start[low]! >= time) return low;
    return lowerBound(this.start, time, low, high);
  }

  /** The event of a row at `time`, or the nearest one at most `reach` away; -1 if there is none. */
  at(row: number, time: number, reach: number): number {
    const from = this.from(row, time - reach);
    let best = -1;
    let distance = reach;
    for (let i = from; i < this.first[row + 1]! && this.start[i]! <= time + reach; i++) {
      const away = Math.max(0, this.start[i]! - time, time - this.end[i]!);
      if (away === 0) return this.event[i]!;
      if (away <= distance) [best, distance] = [this.event[i]!, away];
    }
    return best;
  }

  /** The same rows with only the events that are wanted. */
  only(isWanted: (event: number) => boolean): RowIndex {
    const first = new Int32Array(this.first.length);
    const kept: number[] = [];
    for (let row = 0; row < this.rows; row++) {
      for (let i = this.first[row]!; i < this.first[row + 1]!; i++) if (isWanted(this.event[i]!)) kept.push(i);
      first[row + 1] = kept.length;
    }
    const [start, end] = [picked(this.start, kept), picked(this.end, kept)];
    return new RowIndex(first, Int32Array.from(kept, (i) => this.event[i]!), start, end, sums(start, end));
  }
}

/** Sort all events into rows: `base[track] + depth` is the row of an event. */
export function indexRows(events: Events, base: Int32Array, rows: number): RowIndex {
  const first = new Int32Array(rows + 1);
  for (let i = 0; i < events.count; i++) first[base[events.track[i]!]! + events.depth[i]! + 1]! += 1;
  for (let row = 0; row < rows; row++) first[row + 1]! += first[row]!;
  const event = placed(events, base, first.slice(0, rows));
  const start = picked(events.start, event);
  const end = picked(events.duration, event);
  for (let i = 0; i < end.length; i++) end[i]! += start[i]!;
  return new RowIndex(first, event, start, end, sums(start, end));
}

/** The events that overlap a range. */
export function* overlapping(index: RowIndex, range: Range): Generator<number> {
  for (let row = 0; row < index.rows; row++) {
    for (let i = index.from(row, range.start); i < index.first[row + 1]! && index.start[i]! < range.end; i++) {
      yield index.event[i]!;
    }
  }
}

function placed(events: Events, base: Int32Array, next: Int32Array): Int32Array {
  const event = new Int32Array(events.count);
  for (let i = 0; i < events.count; i++) {
    const row = base[events.track[i]!]! + events.depth[i]!;
    event[next[row]!++] = i;
  }
  return event;
}

function picked(column: Float64Array | Float32Array, places: ArrayLike<number>): Float64Array {
  const values = new Float64Array(places.length);
  for (let i = 0; i < values.length; i++) values[i] = column[places[i]!]!;
  return values;
}

function sums(start: Float64Array, end: Float64Array): Float64Array {
  const busy = new Float64Array(start.length + 1);
  for (let i = 0; i < start.length; i++) busy[i + 1] = busy[i]! + (end[i]! - start[i]!);
  return busy;
}

export function lowerBound(sorted: Float64Array, value: number, low: number, high: number): number {
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle]! < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

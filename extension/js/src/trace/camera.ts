// Which stretch of time is on the canvas. Pure.

import type { Range } from "./model";

const MIN_SPAN_US = 0.05;
const ROOM = 0.02;

/** The visible range, kept within the recording and a little room around it. */
export class Camera {
  start: number;
  end: number;

  constructor(private readonly whole: Range) {
    const room = (whole.end - whole.start) * ROOM;
    this.whole = { start: whole.start - room, end: whole.end + room };
    this.start = this.whole.start;
    this.end = this.whole.end;
  }

  get span(): number {
    return this.end - this.start;
  }

  /** Show `factor` times as much time (less than 1: closer), with `at` staying where it is. */
  zoom(at: number, factor: number): void {
    const span = Math.max(MIN_SPAN_US, this.span * factor);
    const left = (at - this.start) / this.span;
    this.show({ start: at - left * span, end: at + (1 - left) * span });
  }

  pan(by: number): void {
    this.show({ start: this.start + by, end: this.end + by });
  }

  /** Show `range` with some room around it. */
  fit(range: Range): void {
    const room = Math.max(MIN_SPAN_US, (range.end - range.start) * 0.08);
    this.show({ start: range.start - room, end: range.end + room });
  }

  fitAll(): void {
    this.show(this.whole);
  }

  isAll(): boolean {
    return this.span >= (this.whole.end - this.whole.start) * 0.999;
  }

  show(range: Range): void {
    const span = Math.min(range.end - range.start, this.whole.end - this.whole.start);
    this.start = Math.min(Math.max(range.start, this.whole.start), this.whole.end - span);
    this.end = this.start + span;
  }
}

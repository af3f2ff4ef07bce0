// The last two minutes of samples, in order of time. Pure.

import type { Sample } from "./protocol";

export const SPAN_S = 120;
/** Where longer nothing was sampled, a line would tell what nobody saw. */
const GAP_S = 3;

export class Samples {
  private kept: Sample[] = [];

  get last(): Sample | null {
    return this.kept[this.kept.length - 1] ?? null;
  }

  /** Take samples in, in any order; those of the same time are one. */
  add(...samples: Sample[]): void {
    const byTime = new Map([...this.kept, ...samples].map((sample) => [sample.time_s, sample]));
    const all = [...byTime.values()].sort((a, b) => a.time_s - b.time_s);
    const newest = all[all.length - 1]?.time_s ?? 0;
    this.kept = all.filter((sample) => sample.time_s >= newest - SPAN_S);
  }

  /** Samples by time, with null where there is a gap. */
  points(): { times: number[]; samples: (Sample | null)[] } {
    const times: number[] = [];
    const samples: (Sample | null)[] = [];
    for (const sample of this.kept) {
      const before = times[times.length - 1];
      if (before !== undefined && sample.time_s - before > GAP_S) {
        times.push((before + sample.time_s) / 2);
        samples.push(null);
      }
      times.push(sample.time_s);
      samples.push(sample);
    }
    return { times, samples };
  }
}

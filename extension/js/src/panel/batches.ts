// The histogram of batch sizes. Pure.

export interface Bin {
  from: number;
  to: number;
  count: number;
}

const MOST_BINS = 24;

/** Bins of one width from 1 to the largest size that is allowed or was seen. */
export function bins(sizes: [size: number, count: number][], maxBatchSize: number): Bin[] {
  const largest = Math.max(1, maxBatchSize, ...sizes.map(([size]) => size));
  const width = Math.ceil(largest / MOST_BINS);
  const made = Array.from({ length: Math.ceil(largest / width) }, (_, i) => ({ from: i * width + 1, to: Math.min(largest, (i + 1) * width), count: 0 }));
  for (const [size, count] of sizes) made[Math.ceil(size / width) - 1]!.count += count;
  return made;
}

// Sliders whose stops are further apart the higher they are, and axes that end at round numbers. Pure.

export const BATCH_SIZES = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512];
export const DELAYS_MS = [0, 0.5, 1, 2, 3, 5, 8, 10, 15, 20, 30, 50, 75, 100, 150, 200];

/** Where a value stands among the stops, between two of them where it must. */
export function positionOf(stops: number[], value: number): number {
  const above = stops.findIndex((stop) => stop >= value);
  if (above < 0) return stops.length - 1;
  if (above === 0) return 0;
  const [low, high] = [stops[above - 1]!, stops[above]!];
  return above - 1 + (value - low) / (high - low);
}

/** The stop at a position. */
export function stopAt(stops: number[], position: number): number {
  return stops[Math.max(0, Math.min(stops.length - 1, Math.round(position)))]!;
}

/** The stop that is `steps` further than a value. */
export function stopFrom(stops: number[], value: number, steps: number): number {
  const position = positionOf(stops, value);
  return stopAt(stops, steps > 0 ? Math.floor(position) + steps : Math.ceil(position) + steps);
}

/** The end of an axis that has room for a value: 1, 1.5, 2, 3, 5 or 7.5 times a power of ten, at least `least`. */
export function axisEnd(value: number, least: number): number {
  const wanted = Math.max(value, least);
  const power = 10 ** Math.floor(Math.log10(wanted));
  return [1, 1.5, 2, 3, 5, 7.5, 10].map((factor) => factor * power).find((end) => end >= wanted * 0.9999)!;
}

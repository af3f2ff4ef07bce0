// One row of bars. What is thinner than a pixel or two is merged by column: a column is as full as it was busy, and
// hatched, so that many tiny kernels never look like one long one. Columns in which nothing ran stay empty.

import type { Range } from "./model";
import { mix, type Pixel, type Raster } from "./raster";
import type { RowIndex } from "./rows";

/** Bars at least this wide, in device pixels, are drawn as they are. */
const WIDE = 3;
/** Bars at least this wide, in device pixels, have room for some of their name. */
const NAMED = 28;

export interface Bar {
  event: number;
  left: number;
  right: number;
  top: number;
}

export interface Place {
  left: number;
  width: number;
  top: number;
  height: number;
}

/**
 * Draws what of a row is visible into `place`; returns the bars that have room for a name. What is bold is seen however
 * short it was.
 */
export function paintRow(
  raster: Raster,
  index: RowIndex,
  row: number,
  view: Range,
  place: Place,
  colourOf: (event: number) => Pixel,
  background: Pixel,
  isBold = false,
): Bar[] {
  const named: Bar[] = [];
  const scale = place.width / (view.end - view.start);
  const last = index.first[row + 1]!;
  let i = index.from(row, view.start);
  while (i < last && index.start[i]! < view.end) {
    const left = place.left + (index.start[i]! - view.start) * scale;
    const right = place.left + (index.end[i]! - view.start) * scale;
    if (right - left >= WIDE) {
      const bar = { event: index.event[i]!, left, right, top: place.top };
      wide(raster, bar, place, colourOf(bar.event));
      if (right - left >= NAMED) named.push(bar);
      i += 1;
    } else {
      i = thin(raster, index, row, i, view, place, colourOf, background, isBold);
    }
  }
  return named;
}

function wide(raster: Raster, bar: Bar, place: Place, colour: Pixel): void {
  const left = Math.max(place.left, Math.round(bar.left));
  const right = Math.min(place.left + place.width, Math.round(bar.right));
  // One pixel stays free, so that two bars one after the other are two.
  raster.fill(left, place.top, right - 1, place.top + place.height, colour);
}

/** Draws one column of thin bars, from position `i` on; returns the position of the first bar after it. */
function thin(
  raster: Raster,
  index: RowIndex,
  row: number,
  i: number,
  view: Range,
  place: Place,
  colourOf: (event: number) => Pixel,
  background: Pixel,
  isBold: boolean,
): number {
  const scale = place.width / (view.end - view.start);
  const column = Math.max(0, Math.floor((index.start[i]! - view.start) * scale));
  let next = index.startingAt(row, view.start + (column + 1) / scale, i + 1);
  if (next - i > 1 && (index.end[next - 1]! - index.start[next - 1]!) * scale >= WIDE) next -= 1;
  const busy = Math.min(1, (index.busy[next]! - index.busy[i]!) * scale);
  const colour = colourOf(index.event[(i + next) >> 1]!);
  const left = place.left + column;
  if (isBold) raster.fill(left, place.top, Math.min(left + 1, place.left + place.width), place.top + place.height, colour);
  else if (next - i === 1) stripe(raster, left, place, busy, colour, background);
  else hatched(raster, left, place, busy, colour, background);
  return next;
}

function stripe(raster: Raster, left: number, place: Place, busy: number, colour: Pixel, background: Pixel): void {
  const shade = mix(colour, background, 0.45 + 0.55 * busy);
  raster.fill(left, place.top, Math.min(left + 1, place.left + place.width), place.top + place.height, shade);
}

function hatched(raster: Raster, left: number, place: Place, busy: number, colour: Pixel, background: Pixel): void {
  const isGap = left % 3 === 0;
  const bottom = place.top + place.height;
  const full = bottom - Math.max(1, Math.round(busy * place.height));
  raster.fill(left, place.top, left + 1, full, mix(colour, background, isGap ? 0.12 : 0.28));
  raster.fill(left, full, left + 1, bottom, isGap ? mix(colour, background, 0.5) : colour);
}

// One frame of the timeline: pixels first, then the texts and lines above them.

import { paintRow, type Bar, type Place } from "./bars";
import { AXIS, type Frame } from "./frame";
import { visibleSpans } from "./lanes";
import type { Group } from "./layout";
import { memoryLine } from "./memory";
import { mix, pixel, Raster, type Pixel } from "./raster";
import type { RowIndex } from "./rows";
import type { Scene } from "./scene";
import { rangeOf } from "./select";
import { Pen } from "./pen";
import type { Theme } from "./theme";
import { tickStep } from "../shared/units";

interface Colours {
  background: Pixel;
  band: Pixel;
  grid: Pixel;
  families: Pixel[];
  dimmed: Pixel[];
  stages: Map<string, Pixel>;
  dimmedStages: Map<string, Pixel>;
  match: Pixel;
}

export class Painter {
  private readonly raster = new Raster();
  private colours: Colours;

  constructor(
    private readonly scene: Scene,
    private readonly context: CanvasRenderingContext2D,
    private theme: Theme,
  ) {
    this.colours = coloursOf(theme);
  }

  use(theme: Theme): void {
    this.theme = theme;
    this.colours = coloursOf(theme);
  }

  paint(frame: Frame): void {
    const { raster, colours } = this;
    raster.clear(Math.round(frame.width * frame.ratio), Math.round(frame.height * frame.ratio), colours.background);
    const visible = this.scene.layout.groups.filter((group) => isVisible(group, frame));
    visible.forEach((group) => this.band(group, frame));
    this.grid(frame);
    const bars = visible.flatMap((group) => this.group(group, frame));
    raster.draw(this.context);
    const pen = new Pen(this.context, this.scene, this.theme, frame);
    pen.names(bars);
    for (const group of visible) {
      if (group.kind === "memory") memoryLine(this.context, this.scene, this.theme, frame, group);
      if (group.kind === "requests") pen.requestNames(group);
    }
    pen.marks();
    pen.gutter(visible);
    pen.axis(rangeOf(this.scene, this.scene.selection));
  }

  private band(group: Group, frame: Frame): void {
    if (group.kind === "worker") return;
    const { left, width } = plot(frame);
    const top = device(frame, AXIS + group.y - frame.scroll);
    this.raster.fill(left, top, left + width, top + device(frame, group.height), this.colours.band);
  }

  private grid(frame: Frame): void {
    const { left, width } = plot(frame);
    const { camera } = this.scene;
    const step = tickStep((camera.span / width) * 90 * frame.ratio);
    for (let time = Math.ceil(camera.start / step) * step; time < camera.end; time += step) {
      const x = left + Math.round(((time - camera.start) / camera.span) * width);
      this.raster.fill(x, 0, x + 1, this.raster.height, this.colours.grid);
    }
  }

  private group(group: Group, frame: Frame): Bar[] {
    if (group.kind === "requests") this.requests(group, frame);
    return group.kind === "track" ? this.track(group, frame) : [];
  }

  private track(group: Group, frame: Frame): Bar[] {
    const { scene, colours } = this;
    const isQuiet = scene.lit !== null || scene.search !== null;
    const bars = this.rows(scene.index, group, frame, (event) => (isQuiet ? colours.dimmed : colours.families)[scene.family(event)]!);
    if (scene.lit) this.rows(scene.lit, group, frame, (event) => colours.families[scene.family(event)]!);
    if (scene.search) this.rows(scene.search.index, group, frame, () => colours.match, true);
    return bars;
  }

  private rows(index: RowIndex, group: Group, frame: Frame, colourOf: (event: number) => Pixel, isBold = false): Bar[] {
    const bars: Bar[] = [];
    for (let row = 0; row < group.rows; row++) {
      const place = rowPlace(group, row, frame);
      if (place.top + place.height <= 0 || place.top >= this.raster.height) continue;
      const named = paintRow(this.raster, index, group.first + row, this.scene.camera, place, colourOf, this.colours.band, isBold);
      if (group.rowHeight >= 12) bars.push(...named);
    }
    return bars;
  }

  private requests(group: Group, frame: Frame): void {
    for (let lane = 0; lane < group.rows; lane++) {
      const place = rowPlace(group, lane, frame);
      if (place.top + place.height <= 0 || place.top >= this.raster.height) continue;
      for (const i of visibleSpans(this.scene.lanes, lane, this.scene.camera)) this.request(i, place);
    }
  }

  private request(i: number, place: Place): void {
    const { scene, colours } = this;
    const span = scene.trace.header.spans[i]!;
    const isQuiet = scene.litRequests ? !scene.litRequests.has(i) : scene.search ? !scene.search.requestSet.has(i) : false;
    const stages = isQuiet ? colours.dimmedStages : colours.stages;
    const scale = place.width / scene.camera.span;
    let time = span.start_us;
    const whole = Math.round((time - scene.camera.start) * scale);
    for (const [name, durationUs] of span.stages) {
      const left = place.left + Math.max(0, Math.round((time - scene.camera.start) * scale));
      time += durationUs;
      const right = place.left + Math.min(place.width, Math.round((time - scene.camera.start) * scale));
      this.raster.fill(left, place.top, right, place.top + place.height, stages.get(name) ?? colours.grid);
    }
    const until = Math.round((time - scene.camera.start) * scale);
    if (until === whole && whole >= 0 && whole < place.width) this.hairline(place, whole, stages);
    else if (until < place.width) {
      this.raster.fill(place.left + until - 1, place.top, place.left + until, place.top + place.height, colours.band);
    }
  }

  private hairline(place: Place, x: number, stages: Map<string, Pixel>): void {
    this.raster.fill(place.left + x, place.top, place.left + x + 1, place.top + place.height, stages.get("inference")!);
  }
}

function isVisible(group: Group, frame: Frame): boolean {
  return group.y + group.height > frame.scroll && group.y < frame.scroll + frame.height - AXIS;
}

function device(frame: Frame, size: number): number {
  return Math.round(size * frame.ratio);
}

/** The part of the canvas that time runs over, in device pixels. */
function plot(frame: Frame): { left: number; width: number } {
  const left = device(frame, frame.gutter);
  return { left, width: device(frame, frame.width) - left };
}

function rowPlace(group: Group, row: number, frame: Frame): Place {
  const gap = group.rowHeight >= 8 ? 1 : 0;
  const top = device(frame, AXIS + group.y - frame.scroll + row * group.rowHeight);
  const bottom = device(frame, AXIS + group.y - frame.scroll + (row + 1) * group.rowHeight - gap);
  return { ...plot(frame), top, height: bottom - top };
}

function coloursOf(theme: Theme): Colours {
  const band = pixel(theme.band);
  const families = theme.families.map(pixel);
  const stages = new Map([...theme.stages].map(([name, colour]) => [name, pixel(colour)]));
  const dim = (colour: Pixel): Pixel => mix(colour, band, 0.22);
  return {
    background: pixel(theme.background),
    band,
    grid: pixel(theme.grid),
    families,
    dimmed: families.map(dim),
    stages,
    dimmedStages: new Map([...stages].map(([name, colour]) => [name, dim(colour)])),
    match: pixel(theme.match),
  };
}

// One line chart over the last two minutes.

import uPlot from "uplot";
import { h } from "../shared/dom";
import type { Mark } from "./marks";
import { short } from "./quantities";
import { SPAN_S } from "./samples";
import { axisEnd } from "./scale";

/** Colours as the canvas needs them; read anew with each drawing, so that a theme may change. */
export interface Ink {
  line: string;
  muted: string;
  accent: string;
  faint: string;
  fainter: string;
  bad: string;
}

export interface Series {
  colour: keyof Ink;
  /** How much of the colour fills the space below the line. */
  fill?: boolean;
}

const HEIGHT_PX = 84;
const AXIS_PX = 34;

export class TimeChart {
  readonly element = h("div", { class: "plot", role: "img" });
  private readonly plot: uPlot;
  private readonly observer: ResizeObserver;
  private marks: Mark[] = [];

  /** `leastEnd` is how far the axis goes at least; charts of one `group` show the same moment under the pointer. */
  constructor(
    series: Series[],
    private readonly leastEnd: number,
    private readonly ink: () => Ink,
    group: string,
    onpoint: (index: number | null) => void,
  ) {
    this.plot = new uPlot(this.options(series, group, onpoint), [[], ...series.map(() => [])], this.element);
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.element);
  }

  show(times: number[], columns: (number | null)[][], marks: Mark[]): void {
    this.marks = marks;
    this.plot.setData([times, ...columns]);
  }

  redraw(): void {
    this.plot.redraw(false);
  }

  destroy(): void {
    this.observer.disconnect();
    this.plot.destroy();
  }

  private resize(): void {
    const width = Math.floor(this.element.clientWidth);
    if (width && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT_PX });
  }

  private options(series: Series[], group: string, onpoint: (index: number | null) => void): uPlot.Options {
    return {
      width: 300,
      height: HEIGHT_PX,
      padding: [6, 2, 0, 0],
      legend: { show: false },
      cursor: {
        sync: { key: group, setSeries: false },
        drag: { x: false, y: false },
        y: false,
        points: { size: 6, width: 1.5 },
      },
      scales: {
        x: { time: false, range: (_, __, max) => [max - SPAN_S, max] },
        y: { range: (_, __, max) => [0, axisEnd(max ?? 0, this.leastEnd)] },
      },
      axes: [this.timeAxis(), this.valueAxis()],
      series: [{}, ...series.map((each) => this.series(each))],
      hooks: { draw: [(plot) => this.drawMarks(plot)], setCursor: [(plot) => onpoint(plot.cursor.idx ?? null)] },
    };
  }

  private series({ colour, fill }: Series): uPlot.Series {
    const stroke = (): string => this.ink()[colour];
    const shade = (): string => `color-mix(in srgb, ${this.ink()[colour]} 14%, transparent)`;
    return { stroke, width: 1.5, points: { show: false }, ...(fill ? { fill: shade } : {}) };
  }

  private timeAxis(): uPlot.Axis {
    const steps = [SPAN_S, 90, 60, 30, 0];
    return {
      ...this.axis(18),
      splits: (_, __, ___, max) => steps.map((step) => max - step),
      values: () => ["", "", "1 min ago", "", ""],
      grid: { show: false },
    };
  }

  private valueAxis(): uPlot.Axis {
    return {
      ...this.axis(AXIS_PX),
      splits: (_, __, ___, max) => [0, max / 2, max],
      values: (_, splits) => splits.map((value, i) => (i === 1 ? "" : short(value))),
      grid: { stroke: () => this.ink().line, width: 1 },
    };
  }

  private axis(size: number): uPlot.Axis {
    return { size, gap: 4, font: "11px system-ui, sans-serif", stroke: () => this.ink().muted, ticks: { show: false } };
  }

  private drawMarks(plot: uPlot): void {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.strokeStyle = this.ink().muted;
    ctx.lineWidth = Math.max(1, Math.round(window.devicePixelRatio));
    ctx.setLineDash([3 * ctx.lineWidth, 3 * ctx.lineWidth]);
    for (const { time_s } of this.marks) {
      const x = Math.round(plot.valToPos(time_s, "x", true)) + 0.5;
      if (x < bbox.left) continue;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }
}

// Texts, lines and outlines above the pixels of a frame. All sizes are CSS pixels.

import type { Bar } from "./bars";
import type { Group } from "./layout";
import { visibleSpans } from "./lanes";
import type { Range } from "./model";
import { AXIS, boxOf, otherEnd, xOf, type Frame } from "./frame";
import type { Scene, Target } from "./scene";
import type { Theme } from "./theme";
import { duration, tick, tickStep } from "../shared/units";

export const FONT = "11px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif";

export class Pen {
  constructor(
    private readonly context: CanvasRenderingContext2D,
    private readonly scene: Scene,
    private readonly theme: Theme,
    private readonly frame: Frame,
  ) {
    context.setTransform(frame.ratio, 0, 0, frame.ratio, 0, 0);
    context.font = FONT;
    context.textBaseline = "middle";
    context.lineWidth = 1;
  }

  /** The names of bars that have room for some of it. */
  names(bars: Bar[]): void {
    const { ratio, gutter, width } = this.frame;
    const isQuiet = this.scene.lit !== null || this.scene.search !== null;
    this.context.fillStyle = isQuiet ? this.theme.text : this.theme.onBar;
    for (const bar of bars) {
      const left = Math.max(gutter, bar.left / ratio);
      const right = Math.min(width, bar.right / ratio);
      this.text(this.scene.labelOf(bar.event), left + 4, bar.top / ratio + 8, right - left - 8);
    }
  }

  /** What each request took, where its bar has room for it. */
  requestNames(group: Group): void {
    if (group.rowHeight < 12) return;
    const { spans } = this.scene.trace.header;
    this.context.fillStyle = this.theme.onBar;
    for (let lane = 0; lane < group.rows; lane++) {
      const y = AXIS + group.y - this.frame.scroll + lane * group.rowHeight + 8;
      for (const i of visibleSpans(this.scene.lanes, lane, this.scene.camera)) {
        const left = Math.max(this.frame.gutter, this.x(spans[i]!.start_us));
        const right = Math.min(this.frame.width, this.x(spans[i]!.start_us + spans[i]!.total_us));
        const label = right - left > 30 ? duration(spans[i]!.total_us) : "";
        if (label && widthOf(this.context, label) < right - left - 8) this.context.fillText(label, left + 4, y);
      }
    }
  }

  /** Outlines of what is under the pointer and of what is selected, and the line from a launch to its kernel. */
  marks(): void {
    const { hover, selection } = this.scene;
    this.context.save();
    this.context.beginPath();
    this.context.rect(this.frame.gutter, AXIS, this.frame.width - this.frame.gutter, this.frame.height - AXIS);
    this.context.clip();
    if (selection.kind === "event" || selection.kind === "request") this.outline(selection, this.theme.accent, 2);
    if (selection.kind === "event") this.launch(selection.event);
    if (hover && hover.kind !== "memory") this.outline(hover, this.theme.text, 1);
    if (hover?.kind === "event") this.launch(hover.event);
    if (this.scene.search?.current) this.found(this.scene.search.current.event);
    this.context.restore();
  }

  gutter(groups: Group[]): void {
    const { context, theme, frame } = this;
    context.fillStyle = theme.background;
    context.fillRect(0, AXIS, frame.gutter, frame.height - AXIS);
    for (const group of groups) this.title(group);
    context.fillStyle = theme.grid;
    context.fillRect(frame.gutter - 1, 0, 1, frame.height);
  }

  axis(selected: Range | null): void {
    const { context, theme, frame, scene } = this;
    context.fillStyle = theme.background;
    context.fillRect(0, 0, frame.width, AXIS);
    if (selected) this.selected(selected);
    const step = tickStep((scene.camera.span / (frame.width - frame.gutter)) * 90);
    context.fillStyle = theme.muted;
    for (let time = Math.ceil(scene.camera.start / step) * step; time < scene.camera.end; time += step) {
      const x = this.x(time);
      context.fillRect(Math.round(x), AXIS - 6, 1, 6);
      const label = tick(Math.abs(time) < step / 2 ? 0 : time, step);
      if (x + 6 + widthOf(context, label) < frame.width) context.fillText(label, x + 4, 12);
    }
    context.fillStyle = theme.background;
    context.fillRect(0, 0, frame.gutter, AXIS);
    context.fillStyle = theme.grid;
    context.fillRect(0, AXIS - 1, frame.width, 1);
    context.fillStyle = theme.muted;
    this.text(`${duration(scene.camera.span)} shown`, 8, 12, frame.gutter - 12);
  }

  private title(group: Group): void {
    const { context, theme, frame } = this;
    const y = AXIS + group.y - frame.scroll;
    if (group.kind === "worker") {
      context.fillStyle = theme.band;
      context.fillRect(0, y, frame.width, group.height);
    }
    const arrow = group.kind === "track" && group.rows > 1 ? (group.isFolded ? "\u25b8 " : "\u25be ") : "";
    context.fillStyle = theme.text;
    context.font = group.kind === "worker" ? `600 ${FONT}` : FONT;
    this.text(arrow + group.title, 8, y + (group.kind === "worker" ? 10 : 8), frame.gutter - 14);
    context.font = FONT;
    context.fillStyle = theme.muted;
    if (group.kind === "worker") this.text(group.note, frame.gutter + 6, y + 10, 300);
    else if (group.height >= 30) this.text(group.note, 8, y + 23, frame.gutter - 14);
  }

  private selected(range: Range): void {
    const { context, theme, frame } = this;
    const [left, right] = [Math.max(frame.gutter, this.x(range.start)), Math.min(frame.width, this.x(range.end))];
    if (right <= left) return;
    context.fillStyle = theme.accent;
    context.globalAlpha = 0.18;
    context.fillRect(left, 0, right - left, AXIS);
    context.globalAlpha = 0.07;
    context.fillRect(left, AXIS, right - left, frame.height - AXIS);
    context.globalAlpha = 1;
    context.fillRect(left, 0, 1, frame.height);
    context.fillRect(right - 1, 0, 1, frame.height);
  }

  private outline(target: Target, colour: string, width: number): void {
    const box = boxOf(this.scene, this.frame, target);
    if (!box) return;
    this.context.strokeStyle = colour;
    this.context.lineWidth = width;
    this.context.strokeRect(box.left - 0.5, box.top - 0.5, Math.max(2, box.width), box.height);
  }

  private found(event: number): void {
    this.outline({ kind: "event", event }, this.theme.text, 2);
  }

  /** A line to the other end of a launch, when there is one. */
  private launch(event: number): void {
    const other = otherEnd(this.scene, event);
    const [one, two] = [event, other].map((each) => boxOf(this.scene, this.frame, { kind: "event", event: each }));
    if (other < 0 || !one || !two) return;
    const { context } = this;
    const [upper, lower] = one.top < two.top ? [one, two] : [two, one];
    context.strokeStyle = this.theme.text;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(upper.left + upper.width / 2, upper.top + upper.height);
    const middle = (upper.top + lower.top) / 2;
    context.bezierCurveTo(upper.left + upper.width / 2, middle, lower.left, middle, lower.left, lower.top);
    context.stroke();
  }

  private x(time: number): number {
    return xOf(this.scene, this.frame, time);
  }

  /** Text of at most `room` pixels; what does not fit is cut off with an ellipsis. */
  private text(text: string, x: number, y: number, room: number): void {
    if (room < 12) return;
    const width = widthOf(this.context, text);
    if (width <= room) {
      this.context.fillText(text, x, y);
      return;
    }
    const letters = Math.floor((text.length * (room - 8)) / width);
    if (letters >= 2) this.context.fillText(`${text.slice(0, letters)}\u2026`, x, y);
  }
}

const widths = new Map<string, number>();

function widthOf(context: CanvasRenderingContext2D, text: string): number {
  let width = widths.get(text);
  if (width === undefined) {
    width = context.measureText(text).width;
    if (widths.size < 20_000) widths.set(text, width);
  }
  return width;
}

// The timeline as a person meets it: a canvas that scrolls, zooms, pans and tells what is under the pointer.

import { h } from "../shared/dom";
import { AXIS, boxOf, targetAt, timeOf, type Box, type Frame } from "./frame";
import { listen } from "./input";
import type { Range } from "./model";
import { Painter } from "./paint";
import type { Scene, Selection, Target } from "./scene";
import { rangeOf, select } from "./select";
import { LIGHT, type Theme } from "./theme";
import { describe, Tooltip } from "./tooltip";

const NARROW = 640;
const MIN_HEIGHT = 160;
const MAX_HEIGHT = 540;

export class Timeline {
  readonly element: HTMLElement;
  readonly canvas = h("canvas", { tabindex: 0, role: "application" });
  private readonly spacer = h("div", { class: "spacer" });
  private readonly scroller: HTMLElement;
  private readonly painter: Painter;
  private readonly tooltip = new Tooltip();
  private isDue = false;
  private pointer: number | null = null;

  constructor(
    readonly scene: Scene,
    private readonly onselect: () => void,
    readonly onsearch: (action: "focus" | "next" | "previous") => void,
  ) {
    this.canvas.setAttribute("aria-label", labelOf(scene));
    this.scroller = h("div", { class: "scroller", onscroll: () => this.redraw() }, this.canvas, this.spacer);
    this.element = h("div", { class: "timeline" }, this.scroller, this.tooltip.element);
    this.painter = new Painter(scene, this.canvas.getContext("2d", { alpha: false })!, LIGHT);
    new ResizeObserver(() => this.redraw()).observe(this.scroller);
    listen(this);
  }

  use(theme: Theme): void {
    this.painter.use(theme);
    this.redraw();
  }

  /** Sizes as they are now. */
  frame(): Frame {
    const { clientWidth: width, clientHeight: height, scrollTop: scroll } = this.scroller;
    return { width, height, gutter: width < NARROW ? 96 : 150, scroll, ratio: window.devicePixelRatio || 1 };
  }

  /** Paint with the next frame of the screen. */
  redraw(): void {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      this.paint();
    });
  }

  select(selection: Selection): void {
    select(this.scene, selection);
    this.onselect();
    this.redraw();
  }

  /** Show a stretch of time, and the row of `selection` if it is out of sight. */
  show(range: Range, selection: Selection = this.scene.selection): void {
    this.scene.camera.fit(range);
    if (selection.kind === "request" || selection.kind === "event") this.reveal(selection);
    this.redraw();
  }

  /** Show what is selected; everything if nothing is, or if it is shown already. */
  fit(): void {
    const { camera, selection } = this.scene;
    const range = rangeOf(this.scene, selection);
    const before = [camera.start, camera.end].join();
    if (range) camera.fit(range);
    if (!range || before === [camera.start, camera.end].join()) camera.fitAll();
    this.redraw();
  }

  /** Bring the selection into sight without changing how close one looks. */
  follow(): void {
    const { camera, selection } = this.scene;
    const range = rangeOf(this.scene, selection);
    if (!range) return;
    if (range.start < camera.start || range.end > camera.end) camera.pan((range.start + range.end - camera.start - camera.end) / 2);
    if (selection.kind === "request" || selection.kind === "event") this.reveal(selection);
    this.redraw();
  }

  /** Bring the selection into sight, close enough to see it. */
  look(): void {
    const { camera, selection } = this.scene;
    const range = rangeOf(this.scene, selection);
    if (!range) return;
    const isTiny = (range.end - range.start) / camera.span < 0.01;
    if (isTiny) camera.zoom((range.start + range.end) / 2, Math.max(1e-9, ((range.end - range.start) * 25) / camera.span));
    this.follow();
  }

  scrollTo(y: number): void {
    this.scroller.scrollTop = y;
    this.redraw();
  }

  scrollBy(y: number): void {
    this.scrollTo(this.scroller.scrollTop + y);
  }

  /** The time under the pointer; null when it is elsewhere. */
  pointerTime(): number | null {
    return this.pointer === null ? null : timeOf(this.scene, this.frame(), this.pointer);
  }

  hover(x: number, y: number): void {
    const frame = this.frame();
    this.pointer = x >= frame.gutter ? x : null;
    this.scene.hover = targetAt(this.scene, frame, x, y);
    this.canvas.style.cursor = y < AXIS ? "col-resize" : this.scene.hover ? "pointer" : "default";
    if (this.scene.hover) this.tooltip.show(describe(this.scene, this.scene.hover), x, y, frame);
    else this.tooltip.hide();
    this.redraw();
  }

  unhover(): void {
    this.pointer = null;
    this.scene.hover = null;
    this.tooltip.hide();
    this.redraw();
  }

  /** Where on the canvas something is; null when its row is not there. */
  boxOf(target: Target): Box | null {
    return boxOf(this.scene, this.frame(), target);
  }

  private reveal(selection: Target): void {
    const frame = this.frame();
    const box = this.boxOf(selection);
    if (!box || (box.top > AXIS && box.top + box.height < frame.height)) return;
    this.scroller.scrollTop = frame.scroll + box.top - frame.height / 2;
  }

  private paint(): void {
    const frame = this.frame();
    if (!frame.width || !frame.height) return;
    const ideal = Math.max(MIN_HEIGHT, Math.min(MAX_HEIGHT, this.scene.layout.height + AXIS + 4));
    this.scroller.style.height = `${ideal}px`;
    this.spacer.style.height = `${Math.max(0, this.scene.layout.height + AXIS - frame.height)}px`;
    const [width, height] = [Math.round(frame.width * frame.ratio), Math.round(frame.height * frame.ratio)];
    if (this.canvas.width !== width || this.canvas.height !== height) {
      Object.assign(this.canvas, { width, height });
      Object.assign(this.canvas.style, { width: `${frame.width}px`, height: `${frame.height}px` });
    }
    this.painter.paint(frame);
  }
}

function labelOf(scene: Scene): string {
  const { header, events } = scene.trace;
  return (
    `Timeline of ${header.spans.length} requests and ${events.count} events on ${header.tracks.length} rows. ` +
    "Keys: w and s zoom, a and d move, f fits, bracket keys go from request to request, slash searches."
  );
}

// Pointer and keys of the timeline.

import { AXIS, targetAt, timeOf } from "./frame";
import { groupAt } from "./layout";
import type { Timeline } from "./timeline";

const ZOOM_STEP = 1.35;
const PAN_STEP = 0.12;
/** A press that moves less than this, in CSS pixels, is a click. */
const CLICK = 4;

interface Drag {
  kind: "range" | "pan";
  x: number;
  y: number;
  time: number;
  scroll: number;
  isMoved: boolean;
}

/** Makes a timeline answer the pointer and the keys. */
export function listen(timeline: Timeline): void {
  const { canvas } = timeline;
  let drag: Drag | null = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    drag = begin(timeline, event);
    canvas.setPointerCapture(event.pointerId);
    canvas.focus({ preventScroll: true });
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drag) move(timeline, drag, event);
    else timeline.hover(event.offsetX, event.offsetY);
  });
  canvas.addEventListener("pointerup", (event) => {
    if (drag && !drag.isMoved) click(timeline, event);
    drag = null;
  });
  canvas.addEventListener("pointercancel", () => (drag = null));
  canvas.addEventListener("pointerleave", () => timeline.unhover());
  canvas.addEventListener("dblclick", () => timeline.fit());
  canvas.addEventListener("wheel", (event) => wheel(timeline, event), { passive: false });
  canvas.addEventListener("keydown", (event) => key(timeline, event));
}

function begin(timeline: Timeline, event: PointerEvent): Drag {
  const frame = timeline.frame();
  const time = timeOf(timeline.scene, frame, Math.max(frame.gutter, event.offsetX));
  const kind = event.offsetY < AXIS && event.offsetX >= frame.gutter ? "range" : "pan";
  return { kind, x: event.offsetX, y: event.offsetY, time, scroll: frame.scroll, isMoved: false };
}

function move(timeline: Timeline, drag: Drag, event: PointerEvent): void {
  const { scene } = timeline;
  if (Math.abs(event.offsetX - drag.x) + Math.abs(event.offsetY - drag.y) > CLICK) drag.isMoved = true;
  if (!drag.isMoved) return;
  timeline.unhover();
  const now = timeOf(scene, timeline.frame(), event.offsetX);
  if (drag.kind === "pan") {
    scene.camera.pan(drag.time - now);
    timeline.scrollTo(drag.scroll + drag.y - event.offsetY);
  } else {
    const range = { start: Math.min(drag.time, now), end: Math.max(drag.time, now) };
    timeline.select({ kind: "range", range });
  }
}

function click(timeline: Timeline, event: PointerEvent): void {
  const frame = timeline.frame();
  if (event.offsetX < frame.gutter) {
    const found = groupAt(timeline.scene.layout, event.offsetY - AXIS + frame.scroll);
    if (found && event.offsetY >= AXIS) timeline.scene.fold(found.group.key);
    timeline.redraw();
    return;
  }
  const target = targetAt(timeline.scene, frame, event.offsetX, event.offsetY);
  timeline.select(target && target.kind !== "memory" ? target : { kind: "none" });
}

function wheel(timeline: Timeline, event: WheelEvent): void {
  const { camera } = timeline.scene;
  const sideways = event.shiftKey ? event.deltaX || event.deltaY : event.deltaX;
  if (event.ctrlKey || event.metaKey) {
    const at = timeOf(timeline.scene, timeline.frame(), event.offsetX);
    camera.zoom(at, Math.exp(Math.max(-60, Math.min(60, event.deltaY)) * 0.006));
  } else if (Math.abs(sideways) > Math.abs(event.shiftKey ? 0 : event.deltaY)) {
    camera.pan((sideways / timeline.canvas.clientWidth) * camera.span);
  } else {
    return;
  }
  event.preventDefault();
  timeline.hover(event.offsetX, event.offsetY);
}

function key(timeline: Timeline, event: KeyboardEvent): void {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const action = ACTIONS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  action(timeline, event.shiftKey);
  event.preventDefault();
  // JupyterLab has keys of its own for these letters.
  event.stopPropagation();
  timeline.redraw();
}

function zoom(timeline: Timeline, factor: number): void {
  const { camera } = timeline.scene;
  camera.zoom(timeline.pointerTime() ?? (camera.start + camera.end) / 2, factor);
}

function pan(timeline: Timeline, part: number): void {
  timeline.scene.camera.pan(timeline.scene.camera.span * part);
}

/** The request after the selected one (`step` 1), or before it. */
function stepRequest(timeline: Timeline, step: number): void {
  const { selection, trace } = timeline.scene;
  const count = trace.header.spans.length;
  if (!count) return;
  const at = selection.kind === "request" ? selection.request + step : step > 0 ? 0 : count - 1;
  const request = (at + count) % count;
  timeline.select({ kind: "request", request });
  timeline.follow();
}

const ACTIONS: Record<string, (timeline: Timeline, isShifted: boolean) => void> = {
  w: (timeline) => zoom(timeline, 1 / ZOOM_STEP),
  s: (timeline) => zoom(timeline, ZOOM_STEP),
  "+": (timeline) => zoom(timeline, 1 / ZOOM_STEP),
  "=": (timeline) => zoom(timeline, 1 / ZOOM_STEP),
  "-": (timeline) => zoom(timeline, ZOOM_STEP),
  a: (timeline) => pan(timeline, -PAN_STEP),
  d: (timeline) => pan(timeline, PAN_STEP),
  ArrowLeft: (timeline) => pan(timeline, -PAN_STEP),
  ArrowRight: (timeline) => pan(timeline, PAN_STEP),
  ArrowUp: (timeline) => timeline.scrollBy(-48),
  ArrowDown: (timeline) => timeline.scrollBy(48),
  f: (timeline) => timeline.fit(),
  Home: (timeline) => timeline.scene.camera.fitAll(),
  "[": (timeline) => stepRequest(timeline, -1),
  "]": (timeline) => stepRequest(timeline, 1),
  "/": (timeline) => timeline.onsearch("focus"),
  n: (timeline, isShifted) => timeline.onsearch(isShifted ? "previous" : "next"),
  Escape: (timeline) => timeline.select({ kind: "none" }),
};

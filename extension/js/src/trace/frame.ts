// Where things are on the canvas. Pure.

import { spanAt } from "./lanes";
import { groupAt, type Group } from "./layout";
import type { Scene, Target } from "./scene";

/** How high the time axis is, in CSS pixels. */
export const AXIS = 26;

/** How far from the pointer, in CSS pixels, a thin bar is still hit. */
const REACH = 3;

/** Sizes in CSS pixels; `gutter` is the column of titles, `scroll` how far the rows are scrolled up. */
export interface Frame {
  width: number;
  height: number;
  gutter: number;
  scroll: number;
  ratio: number;
}

export function timeOf(scene: Scene, frame: Frame, x: number): number {
  return scene.camera.start + ((x - frame.gutter) / (frame.width - frame.gutter)) * scene.camera.span;
}

/** What is at a point of the canvas. */
export function targetAt(scene: Scene, frame: Frame, x: number, y: number): Target | null {
  if (x < frame.gutter || y < AXIS) return null;
  const found = groupAt(scene.layout, y - AXIS + frame.scroll);
  if (!found) return null;
  const { group, row } = found;
  const time = timeOf(scene, frame, x);
  const reach = (REACH / (frame.width - frame.gutter)) * scene.camera.span;
  if (group.kind === "memory") return { kind: "memory", memory: group.first, time };
  if (group.kind === "requests") {
    const request = spanAt(scene.lanes, scene.trace.header.spans, row, time, reach);
    return request < 0 ? null : { kind: "request", request };
  }
  const event = group.kind === "track" ? scene.index.at(group.first + row, time, reach) : -1;
  return event < 0 ? null : { kind: "event", event };
}

export function xOf(scene: Scene, frame: Frame, time: number): number {
  return frame.gutter + ((time - scene.camera.start) / scene.camera.span) * (frame.width - frame.gutter);
}

export interface Box {
  left: number;
  top: number;
  width: number;
  height: number;
}

/** Where on the canvas something is; null when its row is not laid out. */
export function boxOf(scene: Scene, frame: Frame, target: Target): Box | null {
  const place = target.kind === "request" ? requestRow(scene, target.request) : target.kind === "event" ? eventRow(scene, target.event) : null;
  if (!place) return null;
  const { start, end, group, row } = place;
  const left = xOf(scene, frame, start);
  const top = AXIS + group.y - frame.scroll + row * group.rowHeight;
  return { left, top, width: xOf(scene, frame, end) - left, height: group.rowHeight };
}

function eventRow(scene: Scene, event: number): { group: Group; row: number; start: number; end: number } | null {
  if (event < 0) return null;
  const { track, depth } = scene.trace.events;
  const group = scene.layout.groups.find((one) => one.key === `track ${track[event]}`);
  return group ? { group, row: depth[event]!, ...scene.rangeOf(event) } : null;
}

function requestRow(scene: Scene, request: number): { group: Group; row: number; start: number; end: number } | null {
  const group = scene.layout.groups.find((one) => one.kind === "requests");
  const span = scene.trace.header.spans[request];
  if (!group || !span) return null;
  const { spans } = scene.trace.header;
  const middle = span.start_us + span.total_us / 2;
  const row = scene.lanes.lanes.findIndex((_, lane) => spanAt(scene.lanes, spans, lane, middle, 0) === request);
  return row < 0 ? null : { group, row, start: span.start_us, end: span.start_us + span.total_us };
}

/** The kernel of a launch, or the launch of a kernel; -1 if there is none. */
export function otherEnd(scene: Scene, event: number): number {
  const { correlation, track } = scene.trace.events;
  const wanted = correlation[event]!;
  if (!wanted) return -1;
  for (let at = correlation.indexOf(wanted); at >= 0; at = correlation.indexOf(wanted, at + 1)) {
    if (track[at] !== track[event]) return at;
  }
  return -1;
}

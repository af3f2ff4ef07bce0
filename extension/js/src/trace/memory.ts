// The line of allocated memory, and the places in Python that it comes from.

import { h } from "../shared/dom";
import type { MemoryRow, MemoryUse } from "./model";
import { AXIS, type Frame } from "./frame";
import type { Group } from "./layout";
import { lowerBound } from "./rows";
import type { Scene } from "./scene";
import type { Theme } from "./theme";
import { bytes, count } from "../shared/units";

/** What was allocated at a time: the last value before it. */
export function memoryAt(use: MemoryUse, time: number): number {
  const at = lowerBound(Float64Array.from(use.time_us), time, 0, use.time_us.length);
  return use.bytes[Math.max(0, use.time_us[at] === time ? at : at - 1)] ?? 0;
}

export function memoryLine(
  context: CanvasRenderingContext2D,
  scene: Scene,
  theme: Theme,
  frame: Frame,
  group: Group,
): void {
  const use = scene.trace.header.memory[group.first]!;
  const peak = Math.max(1, ...use.bytes);
  const bottom = AXIS + group.y - frame.scroll + group.height;
  const x = (time: number): number =>
    frame.gutter + ((time - scene.camera.start) / scene.camera.span) * (frame.width - frame.gutter);
  const y = (value: number): number => bottom - (value / peak) * (group.height - 14);
  context.save();
  context.beginPath();
  context.rect(frame.gutter, bottom - group.height, frame.width - frame.gutter, group.height);
  context.clip();
  context.beginPath();
  context.moveTo(x(use.time_us[0]!), bottom);
  use.time_us.forEach((time, i) => {
    context.lineTo(x(time), y(use.bytes[Math.max(0, i - 1)]!));
    context.lineTo(x(time), y(use.bytes[i]!));
  });
  context.lineTo(x(use.time_us[use.time_us.length - 1]!), bottom);
  context.globalAlpha = 0.25;
  context.fillStyle = theme.accent;
  context.fill();
  context.globalAlpha = 1;
  context.strokeStyle = theme.accent;
  context.stroke();
  context.fillStyle = theme.muted;
  context.fillText(`peak ${bytes(peak)}`, frame.gutter + 6, bottom - group.height + 9);
  context.restore();
}

/** The places of all workers, those with the highest peak first; null when none were recorded. */
export function placesTable(uses: MemoryUse[]): HTMLElement | null {
  const rows = uses.flatMap((use) => use.rows.map((row) => ({ ...row, worker: use.worker })));
  if (!rows.length) return null;
  rows.sort((a, b) => b.peak_bytes - a.peak_bytes);
  const heads = ["place", "worker", "peak", "at the end", "blocks"].map((name, i) =>
    h("th", { scope: "col", class: i ? "number" : "text" }, h("span", {}, name)),
  );
  const table = h("table", {}, h("thead", {}, h("tr", {}, ...heads)), h("tbody", {}, ...rows.map(placeRow)));
  return h("div", { class: "optable", tabindex: 0, role: "region", "aria-label": "memory by place" }, table);
}

function placeRow(row: MemoryRow & { worker: number }): HTMLElement {
  const numbers = [String(row.worker), bytes(row.peak_bytes), bytes(row.bytes), count(row.count)];
  const cells = numbers.map((number) => h("td", { class: "number" }, number));
  return h("tr", {}, h("td", { class: "text name", title: row.place }, row.place), ...cells);
}

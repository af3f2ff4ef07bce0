// What is under the pointer, in words.

import { h } from "../shared/dom";
import { otherEnd, type Frame } from "./frame";
import { memoryAt } from "./memory";
import type { Batch } from "./model";
import type { Scene, Target } from "./scene";
import { stageLabel } from "./stages";
import { bytes, duration, percent, plural } from "../shared/units";

export interface Description {
  title: string;
  facts: [name: string, value: string][];
}

export function describe(scene: Scene, target: Target): Description {
  if (target.kind === "request") return describeRequest(scene, target.request);
  if (target.kind === "event") return describeEvent(scene, target.event);
  const use = scene.trace.header.memory[target.memory]!;
  return {
    title: `memory of ${use.device}`,
    facts: [["allocated", bytes(memoryAt(use, target.time))], ["at", duration(target.time)]],
  };
}

function describeRequest(scene: Scene, request: number): Description {
  const span = scene.trace.header.spans[request]!;
  const stages = span.stages
    .filter(([, us]) => us > 0)
    .map(([name, us]): [string, string] => [stageLabel(name), `${duration(us)} \u00b7 ${percent(us / (span.total_us || 1))}`]);
  const title = `request ${span.request_id}`;
  return { title, facts: [["total", duration(span.total_us)], ...stages, ...batchFacts(scene, span.batch)] };
}

function describeEvent(scene: Scene, event: number): Description {
  const { events, header } = scene.trace;
  const facts: [string, string][] = [["duration", duration(events.duration[event]!)]];
  if (events.self[event]! < events.duration[event]! * 0.9995) facts.push(["self", duration(events.self[event]!)]);
  const detail = scene.detailOf(event);
  if (detail) facts.push(["inputs", detail]);
  facts.push(["starts at", duration(events.start[event]!)]);
  const other = otherEnd(scene, event);
  if (other >= 0) facts.push([isGpu(scene, event) ? "launched by" : "launches", scene.nameOf(other)], delayOf(scene, event, other));
  facts.push(...batchFacts(scene, events.batch[event]!));
  if (events.batch[event]! >= 0) facts.push(...requestFacts(scene, events.batch[event]!));
  const category = header.categories[events.category[event]!];
  return { title: scene.nameOf(event), facts: category ? [...facts, ["kind", category.replace("_", " ")]] : facts };
}

function isGpu(scene: Scene, event: number): boolean {
  return scene.trace.header.tracks[scene.trace.events.track[event]!]?.kind === "gpu";
}

function delayOf(scene: Scene, event: number, other: number): [string, string] {
  const { start } = scene.trace.events;
  return ["from launch to start", duration(Math.abs(start[other]! - start[event]!))];
}

function batchFacts(scene: Scene, batch: number): [string, string][] {
  const found: Batch | undefined = scene.trace.header.batches[batch];
  if (!found) return [];
  return [["batch", `${found.batch_id} \u00b7 ${plural(found.rows, "request")} \u00b7 worker ${found.worker}`]];
}

function requestFacts(scene: Scene, batch: number): [string, string][] {
  const ids = scene.trace.header.spans.filter((span) => span.batch === batch).map((span) => span.request_id);
  if (!ids.length) return [];
  const more = ids.length > 2 ? ` and ${ids.length - 2} more` : "";
  return [[ids.length === 1 ? "request" : "requests", ids.slice(0, 2).join(", ") + more]];
}

function shortened(title: string): string {
  return title.length > 220 ? `${title.slice(0, 220)}\u2026` : title;
}

export class Tooltip {
  readonly element = h("div", { class: "tooltip", role: "status", hidden: "" });

  /** Beside the point, on the side that has room. */
  show(description: Description, x: number, y: number, frame: Frame): void {
    const facts = h("dl", {}, ...description.facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
    this.element.replaceChildren(h("b", {}, shortened(description.title)), facts);
    this.element.hidden = false;
    const { offsetWidth: width, offsetHeight: height } = this.element;
    const left = x + 14 + width > frame.width ? Math.max(0, x - width - 10) : x + 14;
    const top = Math.max(0, Math.min(y + 14, frame.height - height - 2));
    Object.assign(this.element.style, { left: `${left}px`, top: `${top}px` });
  }

  hide(): void {
    this.element.hidden = true;
  }
}

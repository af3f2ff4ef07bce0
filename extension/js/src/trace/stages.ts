// The stages of a request, in words, and as a bar.

import { h } from "./dom";
import type { Stage } from "./model";
import { duration, percent } from "./units";

const LABELS: Record<string, [label: string, meaning: string]> = {
  receive: ["receive", "reading the request from the network"],
  queue: ["queue", "waiting until a worker is free"],
  batch_wait: ["batch wait", "waiting for more requests to fill the batch"],
  ipc: ["hand over", "going from the server to the worker and back"],
  preprocess: ["preprocess", "the handler's preprocess"],
  inference: ["inference", "the handler's inference"],
  postprocess: ["postprocess", "the handler's postprocess"],
  encode: ["encode", "turning the result into bytes"],
  respond: ["respond", "sending the answer"],
};

export const STAGES = Object.keys(LABELS);

export function stageLabel(name: string): string {
  return LABELS[name]?.[0] ?? name;
}

export function stageMeaning(name: string): string {
  return LABELS[name]?.[1] ?? name;
}

/** One bar as long as the request, each stage in its colour and, where there is room, with its name and share. */
export function stageBar(stages: Stage[]): HTMLElement {
  const total = stages.reduce((sum, [, us]) => sum + us, 0) || 1;
  const parts = stages.filter(([, us]) => us > 0).map(([name, us]) => stagePart(name, us, total));
  const words = stages.map(([name, us]) => `${stageLabel(name)} ${duration(us)}`).join(", ");
  return h("div", { class: "stagebar", role: "img", "aria-label": words }, ...parts);
}

function stagePart(name: string, us: number, total: number): HTMLElement {
  const share = us / total;
  const title = `${stageLabel(name)} (${stageMeaning(name)}): ${duration(us)}, ${percent(share)}`;
  const label = share > 0.06 ? `${stageLabel(name)} ${percent(share)}` : "";
  return h("span", { class: `stage ${name}`, style: `flex: ${share} 0 0`, title }, h("span", {}, label));
}

// The stages of a request, in words, and as a bar.

import { h } from "../shared/dom";
import look from "../shared/look.json";
import type { Stage } from "./model";
import { duration, percent } from "../shared/units";

/** The stages in their order. */
export const STAGES = look.stages;

export function stageLabel(name: string): string {
  return STAGES.find((stage) => stage.name === name)?.label ?? name;
}

function stageMeaning(name: string): string {
  return STAGES.find((stage) => stage.name === name)?.meaning ?? name;
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

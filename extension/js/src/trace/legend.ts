// What the colours mean: only those that are in this trace.

import { h } from "./dom";
import { FAMILIES, FAMILY_LABELS } from "./families";
import type { Scene } from "./scene";
import { STAGES, stageLabel, stageMeaning } from "./stages";
import type { Theme } from "./theme";

export function legend(scene: Scene): HTMLElement {
  return h(
    "div",
    { class: "legend" },
    h("div", {}, h("b", {}, "requests"), ...stagesOf(scene).map((name) => entry(`stage ${name}`, stageLabel(name), stageMeaning(name)))),
    h("div", {}, h("b", {}, "operators"), ...familiesIn(scene).map((name) => entry(`family ${name}`, FAMILY_LABELS[name]))),
  );
}

function entry(colour: string, label: string, title = ""): HTMLElement {
  return h("span", { title: title || undefined }, h("i", { class: colour }), label);
}

function stagesOf(scene: Scene): string[] {
  const seen = new Set(scene.trace.header.spans.flatMap((span) => span.stages.flatMap(([name, us]) => (us > 0 ? [name] : []))));
  return STAGES.filter((name) => seen.has(name));
}

function familiesIn(scene: Scene): (typeof FAMILIES)[number][] {
  const seen = new Set<number>();
  for (let i = 0; i < scene.trace.events.count; i++) seen.add(scene.family(i));
  return FAMILIES.filter((_, i) => seen.has(i));
}

/** The theme's colours as CSS variables and classes' colours. */
export function applyTheme(theme: Theme, style: HTMLStyleElement): void {
  const root = document.documentElement;
  root.dataset["theme"] = theme.isDark ? "dark" : "light";
  for (const name of ["background", "band", "grid", "text", "muted", "accent", "onBar"] as const) {
    root.style.setProperty(`--${name}`, theme[name]);
  }
  const rule = (kind: string) => ([name, colour]: [string, string]): string => `.${kind}.${name}{background:${colour}}`;
  style.textContent = [
    ...Object.entries(theme.stages).map(rule("stage")),
    ...Object.entries(theme.families).map(rule("family")),
  ].join("");
}

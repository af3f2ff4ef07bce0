// What the colours mean: only those that are in this trace.

import { h } from "../shared/dom";
import { FAMILIES } from "./families";
import type { Scene } from "./scene";
import { STAGES } from "./stages";
import type { Theme } from "./theme";

export function legend(scene: Scene): HTMLElement {
  return h(
    "div",
    { class: "legend" },
    h("div", {}, h("b", {}, "requests"), ...stagesOf(scene).map((stage) => entry(`stage ${stage.name}`, stage.label, stage.meaning))),
    h("div", {}, h("b", {}, "operators"), ...familiesIn(scene).map((family) => entry(`family ${family.name}`, family.label))),
  );
}

function entry(colour: string, label: string, title = ""): HTMLElement {
  return h("span", { title: title || undefined }, h("i", { class: colour }), label);
}

function stagesOf(scene: Scene): typeof STAGES {
  const seen = new Set(scene.trace.header.spans.flatMap((span) => span.stages.flatMap(([name, us]) => (us > 0 ? [name] : []))));
  return STAGES.filter((stage) => seen.has(stage.name));
}

function familiesIn(scene: Scene): typeof FAMILIES {
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
  style.textContent = [
    ...[...theme.stages].map(([name, colour]) => `.stage.${name}{background:${colour}}`),
    ...FAMILIES.map(({ name }, i) => `.family.${name}{background:${theme.families[i]!}}`),
  ].join("");
}

// Where a request's time goes: its stages, with the small ones as one. Pure.

import { stages as looks } from "../shared/look.json";

export interface Part {
  name: string;
  label: string;
  meaning: string;
  ms: number;
  share: number;
}

const SHOWN = ["queue", "batch_wait", "preprocess", "inference", "postprocess"];
const REST = looks.filter((look) => !SHOWN.includes(look.name));

/** The stages that are told apart and the rest, always the same ones in the same order. */
export function parts(stagesMs: Record<string, number>): Part[] {
  const of = (name: string): number => Math.max(0, stagesMs[name] ?? 0);
  const total = looks.reduce((sum, { name }) => sum + of(name), 0);
  const share = (ms: number): number => (total > 0 ? ms / total : 0);
  const shown = looks.filter((look) => SHOWN.includes(look.name));
  const rest = REST.reduce((sum, { name }) => sum + of(name), 0);
  const meaning = REST.map(({ label }) => label).join(", ");
  return [
    ...shown.map(({ name, label, meaning }) => ({ name, label, meaning, ms: of(name), share: share(of(name)) })),
    { name: "other", label: "other", meaning, ms: rest, share: share(rest) },
  ];
}

/** A span's stages, which have their unit in the name. */
export function ofSpan(span: Record<string, number | string>): Record<string, number> {
  return Object.fromEntries(looks.map(({ name }) => [name, Number(span[`${name}_ms`] ?? 0)]));
}

/** The colours of the stages, as CSS. */
export function colours(isDark: boolean): string {
  const rules = looks.map((look) => `.stage.${look.name}{background:${isDark ? look.dark : look.light}}`);
  return [...rules, `.stage.other{background:${isDark ? "#566273" : "#b4bfcc"}}`].join("");
}

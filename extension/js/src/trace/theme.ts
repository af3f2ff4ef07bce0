// Light or dark, as the page around the viewer is, and the colours of each.

import { followDark } from "../shared/theme";
import look from "../shared/look.json";

export interface Theme {
  isDark: boolean;
  background: string;
  band: string;
  grid: string;
  text: string;
  muted: string;
  accent: string;
  match: string;
  onBar: string;
  /** By the order of FAMILIES. */
  families: string[];
  stages: Map<string, string>;
}

export const LIGHT: Theme = {
  isDark: false,
  background: "#ffffff",
  band: "#f3f5f8",
  grid: "#e6e9ee",
  text: "#1c2330",
  muted: "#5f6b7c",
  accent: "#1d5fd1",
  match: "#ff56a5",
  onBar: "#10151f",
  families: look.families.map((family) => family.light),
  stages: new Map(look.stages.map((stage) => [stage.name, stage.light])),
};

export const DARK: Theme = {
  isDark: true,
  background: "#111418",
  band: "#1a1f26",
  grid: "#2a313b",
  text: "#e8ebf0",
  muted: "#9aa6b6",
  accent: "#6ea8ff",
  match: "#d1307f",
  onBar: "#ffffff",
  families: look.families.map((family) => family.dark),
  stages: new Map(look.stages.map((stage) => [stage.name, stage.dark])),
};

/** Calls `apply` with the theme now and whenever it changes. */
export function followTheme(apply: (theme: Theme) => void): void {
  followDark((isDark) => apply(isDark ? DARK : LIGHT));
}

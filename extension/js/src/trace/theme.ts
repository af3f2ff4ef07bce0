// Light or dark, as the page around the viewer is, and the colours of each.

import type { Family } from "./families";

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
  families: Record<Family, string>;
  stages: Record<string, string>;
}

export const LIGHT: Theme = {
  isDark: false,
  background: "#ffffff",
  band: "#f3f5f8",
  grid: "#e6e9ee",
  text: "#1c2330",
  muted: "#5f6b7c",
  accent: "#1d5fd1",
  match: "#d6006c",
  onBar: "#10151f",
  families: {
    batch: "#cfd6e0",
    matmul: "#6aa5f5",
    attention: "#a596f5",
    norm: "#4cc3b0",
    elementwise: "#f5b352",
    copy: "#f08ba0",
    launch: "#c4b69c",
    sync: "#e2574c",
    python: "#a3c95e",
    other: "#b4bfcc",
  },
  stages: {
    receive: "#a9b6c6",
    queue: "#f2a93b",
    batch_wait: "#f8d57e",
    ipc: "#bba9ec",
    preprocess: "#45c1c6",
    inference: "#52ad68",
    postprocess: "#a8d67a",
    encode: "#8db4ea",
    respond: "#6a8fc4",
  },
};

export const DARK: Theme = {
  isDark: true,
  background: "#111418",
  band: "#1a1f26",
  grid: "#2a313b",
  text: "#e8ebf0",
  muted: "#9aa6b6",
  accent: "#6ea8ff",
  match: "#ff5fae",
  onBar: "#ffffff",
  families: {
    batch: "#404b5b",
    matmul: "#2f6fc9",
    attention: "#6c5ad0",
    norm: "#1d8574",
    elementwise: "#a86e14",
    copy: "#ab465f",
    launch: "#756a55",
    sync: "#c8392f",
    python: "#597a24",
    other: "#566273",
  },
  stages: {
    receive: "#5f6f83",
    queue: "#b97a12",
    batch_wait: "#8d7328",
    ipc: "#6e5bab",
    preprocess: "#18858a",
    inference: "#2c7d42",
    postprocess: "#5f8a34",
    encode: "#3c68a6",
    respond: "#2f4f80",
  },
};

/** Calls `apply` with the theme now and whenever it changes. */
export function followTheme(apply: (theme: Theme) => void): void {
  const prefers = window.matchMedia("(prefers-color-scheme: dark)");
  const update = (): void => apply(isDark(prefers.matches) ? DARK : LIGHT);
  prefers.addEventListener("change", update);
  const body = outerBody();
  if (body) {
    new MutationObserver(update).observe(body, { attributes: true, attributeFilter: ["data-jp-theme-light", "class"] });
  }
  update();
}

function isDark(isPreferred: boolean): boolean {
  const body = outerBody();
  const isLight = body?.getAttribute("data-jp-theme-light");
  if (isLight) return isLight === "false";
  if (body?.classList.contains("vscode-dark")) return true;
  if (body?.classList.contains("vscode-light")) return false;
  return isPreferred;
}

/** The body of the notebook page that this viewer is in; null when there is none, or none that may be read. */
function outerBody(): HTMLElement | null {
  try {
    return window.parent === window ? document.body : window.parent.document.body;
  } catch {
    return null;
  }
}

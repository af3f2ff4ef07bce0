// The `%%serve` line that gives an endpoint the settings it has now. Pure.

import type { Setting, Settings } from "./protocol";

export const DEFAULTS: Settings = {
  workers: 1,
  max_batch_size: 32,
  max_batch_delay_ms: 0,
  policy: "adaptive",
  queue_size: 1024,
  response_timeout_s: 60,
};

/** The line as typed, without what can be tuned here, and then what was tuned. */
export function serveLine(name: string, typed: string, settings: Settings): string {
  const kept = untuned(words(typed));
  return ["%%serve", ...(kept.length ? kept : [name]), ...options(settings)].join(" ");
}

/** The options for settings that are not the defaults. */
export function options(settings: Settings): string[] {
  return Object.keys(DEFAULTS)
    .filter((name) => isTold(name, settings))
    .map((name) => `--${name.replaceAll("_", "-")} ${settings[name]}`);
}

function isTold(name: string, settings: Settings): boolean {
  const value: Setting | undefined = settings[name];
  if (value === undefined || value === DEFAULTS[name]) return false;
  // A delay alone selects the policy `window`.
  if (name === "max_batch_delay_ms") return settings["policy"] === "window";
  if (name === "policy") return !settings["max_batch_delay_ms"];
  return true;
}

/** Words as a shell sees them, quotes and all. */
function words(line: string): string[] {
  return line.match(/(?:[^\s"'\\]|\\.|"(?:[^"\\]|\\.)*"|'[^']*')+/g) ?? [];
}

function untuned(all: string[]): string[] {
  const kept: string[] = [];
  for (let i = 0; i < all.length; i++) {
    const [option, value] = all[i]!.split("=", 2) as [string, string?];
    const name = option.startsWith("--") ? option.slice(2).replaceAll("-", "_") : "";
    if (!(name in DEFAULTS)) kept.push(all[i]!);
    else if (value === undefined) i += 1;
  }
  return kept;
}

// A load on the endpoint in words. Pure.

import { amount, millis } from "./quantities";
import { count, plural } from "../shared/units";
import type { LoadStatus } from "./protocol";

/** How much of its time has passed, 0 to 1. */
export function progress(load: LoadStatus, now_s: number): number {
  if (!load.is_running) return load.outcome ? 1 : 0;
  return Math.max(0, Math.min(1, (now_s - load.began_s) / load.seconds));
}

export function inWords(load: LoadStatus, now_s: number): string {
  const failed = errors(load.outcome?.errors ?? load.errors);
  if (load.outcome) {
    const { rate, latency_ms } = load.outcome;
    return `${amount(rate)} good answers/s \u00b7 p50 ${millis(latency_ms["p50"])} ms \u00b7 p99 ${millis(latency_ms["p99"])} ms \u00b7 ${failed}`;
  }
  const left = Math.max(0, Math.ceil(load.began_s + load.seconds - now_s));
  return load.is_running ? `${who(load)}: ${plural(load.requests, "request")}, ${failed}, ${left} s left` : `ended: ${failed}`;
}

function who(load: LoadStatus): string {
  return load.rate !== null ? `${amount(load.rate)} requests/s` : plural(load.clients ?? 0, "client");
}

function errors(byKind: Record<string, number>): string {
  const kinds = Object.entries(byKind).filter(([, times]) => times > 0);
  return kinds.length ? `errors: ${kinds.map(([kind, times]) => `${count(times)} of ${kind}`).join(", ")}` : "no errors";
}

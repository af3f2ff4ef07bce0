// Numbers as the panel shows them. Pure.

import { count, figures } from "../shared/units";

export const NOTHING = "\u2013";

/** Per second, and other numbers that may be large: three figures, whole ones from a hundred on. */
export function amount(value: number): string {
  return value >= 99.95 ? count(Math.round(value)) : Number.isInteger(value) ? String(value) : figures(value);
}

/** Milliseconds, with figures as they matter. */
export function millis(ms: number | null | undefined): string {
  return ms === null || ms === undefined ? NOTHING : ms >= 99.95 ? count(Math.round(ms)) : figures(ms);
}

/** For the end of an axis: short, whatever the size. */
export function short(value: number): string {
  if (value >= 1e6) return `${trimmed(value / 1e6)}M`;
  if (value >= 1e3) return `${trimmed(value / 1e3)}k`;
  return trimmed(value);
}

function trimmed(value: number): string {
  return String(Number(value.toPrecision(3)));
}

export function ago(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole <= 0) return "now";
  return whole < 60 ? `${whole} s ago` : `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")} min ago`;
}

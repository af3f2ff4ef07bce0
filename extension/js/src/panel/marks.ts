// When a setting changed, and how: what the thin lines in the charts say. Pure.

import type { EndpointStatus, Setting } from "./protocol";
import { SPAN_S } from "./samples";

export interface Mark {
  time_s: number;
  text: string;
}

export class Marks {
  all: Mark[] = [];
  private before: EndpointStatus | null = null;

  /** Compare an endpoint with what it was the last time. */
  see(endpoint: EndpointStatus, time_s: number): void {
    const texts = this.before ? differences(this.before, endpoint) : [];
    this.before = endpoint;
    if (texts.length) this.all.push({ time_s, text: texts.join(", ") });
    this.all = this.all.filter((mark) => mark.time_s >= time_s - SPAN_S);
  }

  /** The last change not more than `reach_s` from a time. */
  near(time_s: number, reach_s: number): Mark | null {
    return this.all.filter((mark) => Math.abs(mark.time_s - time_s) <= reach_s).pop() ?? null;
  }
}

function differences(before: EndpointStatus, after: EndpointStatus): string[] {
  const names = Object.keys(after.settings).filter((name) => after.settings[name] !== before.settings[name]);
  const changes = names.map((name) => `${name} ${shown(before.settings[name])} \u2192 ${shown(after.settings[name])}`);
  return before.version === after.version ? changes : [`version ${after.version ?? "none"}`, ...changes];
}

function shown(value: Setting | undefined): string {
  return value === undefined || value === "" ? "off" : String(value);
}

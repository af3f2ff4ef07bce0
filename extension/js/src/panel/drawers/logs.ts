// The endpoint's log, which goes on while this is open.

import { h } from "../../shared/dom";
import type { LogLine } from "../protocol";
import { type Drawer, Saying, type Tools } from "./drawer";

const MOST_LINES = 200;
const PAUSE_MS = 1000;

export class LogsDrawer implements Drawer {
  readonly label = "Logs";
  readonly content: HTMLElement;
  private readonly lines = h("pre", { class: "lines", role: "log", "aria-label": "log", tabindex: 0 });
  private readonly saying = new Saying();
  private last = 0;
  private isOpen = false;
  private timer = 0;

  constructor(private readonly tools: Tools) {
    this.content = h("div", {}, this.lines, this.saying.element);
  }

  opened(): void {
    this.isOpen = true;
    void this.follow();
  }

  closed(): void {
    this.isOpen = false;
    clearTimeout(this.timer);
  }

  private async follow(): Promise<void> {
    try {
      this.add(await this.tools.ask.json<LogLine[]>("GET", `/logs?lines=${MOST_LINES}&after=${this.last}`));
      this.saying.say(this.lines.childElementCount ? "" : "nothing was logged yet");
    } catch (error) {
      this.saying.say((error as Error).message, true);
    }
    if (this.isOpen) this.timer = setTimeout(() => void this.follow(), PAUSE_MS);
  }

  /** Stays at the end unless somebody has scrolled away from it. */
  private add(found: LogLine[]): void {
    if (!this.isOpen) return;
    const { lines } = this;
    const isAtEnd = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 30;
    for (const line of found) lines.append(lineOf(line));
    while (lines.childElementCount > MOST_LINES) lines.firstElementChild!.remove();
    this.last = found[found.length - 1]?.number ?? this.last;
    if (isAtEnd) lines.scrollTop = lines.scrollHeight;
  }
}

function lineOf(line: LogLine): HTMLElement {
  const time = new Date(line.time_s * 1000).toTimeString().slice(0, 8);
  const who = line.worker === null ? "" : `[${line.worker}] `;
  return h("span", { class: line.level.toLowerCase() }, h("time", {}, time), ` ${who}${line.text}\n`);
}

// A tab with the newest log lines of an endpoint; it follows them until its reader scrolls back.

import { Poll } from "@lumino/polling";
import { Widget } from "@lumino/widgets";
import { h } from "../shared/dom";
import { ApiError, type Api, type LogLine, type Place } from "./api";
import { setText } from "./keyed";

const POLL_MS = 1000;
const SLOWEST_POLL_MS = 15_000;
const FIRST_LINES = 500;
const MOST_LINES = 5000;
// Scrolled this near to the end counts as at the end.
const NEAR_PX = 16;

export class LogView extends Widget {
  private readonly failure = h("p", { role: "status", class: "nbserve-failure", hidden: true });
  private readonly empty = h("p", { class: "nbserve-empty" }, "No lines yet: what the handler prints comes here.");
  private readonly lines = h("div", { role: "log", tabindex: 0, class: "nbserve-lines" });
  private readonly toEnd = h("button", { type: "button", class: "nbserve-to-end", hidden: true, onclick: () => this.follow() }, "newest lines");
  private readonly poll: Poll;
  private last = 0;
  private isFollowing = true;

  constructor(
    private readonly api: Api,
    readonly place: Place,
  ) {
    super();
    this.addClass("nbserve-logs");
    this.lines.setAttribute("aria-label", `logs of ${place.name}`);
    this.lines.addEventListener("scroll", () => this.onScroll());
    this.node.append(this.failure, this.empty, this.lines, this.toEnd);
    this.poll = new Poll({
      name: `nbserve:logs:${place.name}`,
      factory: () => this.ask(),
      frequency: { interval: POLL_MS, max: SLOWEST_POLL_MS, backoff: true },
      standby: () => !this.isVisible || document.hidden,
    });
  }

  dispose(): void {
    this.poll.dispose();
    super.dispose();
  }

  protected onAfterAttach(): void {
    void this.poll.refresh();
  }

  protected onAfterShow(): void {
    void this.poll.refresh();
  }

  protected onActivateRequest(): void {
    this.lines.focus();
  }

  private async ask(): Promise<void> {
    try {
      this.append(await this.api.logs(this.place, this.last ? MOST_LINES : FIRST_LINES, this.last));
      this.tell("");
    } catch (error) {
      const isGone = error instanceof ApiError && error.status === 404;
      this.tell(isGone ? `${this.place.name} is not running any more.` : (error as Error).message);
      throw error;
    }
  }

  private append(lines: LogLine[]): void {
    // An answer that was overtaken by another one brings nothing new.
    const fresh = lines.filter((line) => line.number > this.last);
    if (!fresh.length) return;
    this.last = fresh[fresh.length - 1]!.number;
    this.empty.hidden = true;
    this.lines.append(...fresh.map(element));
    while (this.lines.childElementCount > MOST_LINES) this.lines.firstElementChild!.remove();
    if (this.isFollowing) this.follow();
  }

  private tell(failure: string): void {
    this.failure.hidden = !failure;
    setText(this.failure, failure);
    if (failure) this.empty.hidden = true;
  }

  private follow(): void {
    this.lines.scrollTop = this.lines.scrollHeight;
    this.onScroll();
  }

  private onScroll(): void {
    const { scrollHeight, scrollTop, clientHeight } = this.lines;
    this.isFollowing = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    this.toEnd.hidden = this.isFollowing;
  }
}

function element(line: LogLine): HTMLElement {
  const worker = line.worker === null ? "" : `[${line.worker}] `;
  const level = line.level === "INFO" ? "" : `${line.level.toLowerCase()} `;
  const time = new Date(line.time_s * 1000);
  return h(
    "div",
    { "data-level": line.level },
    h("time", { datetime: time.toISOString() }, `${time.toLocaleTimeString("en-GB")} `),
    h("span", { class: "nbserve-faint" }, worker),
    h("strong", {}, level),
    line.text,
  );
}

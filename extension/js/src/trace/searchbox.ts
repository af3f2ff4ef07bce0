// The box to search in: what is found lights up, n and N go from one to the next.

import { button, h } from "../shared/dom";
import type { Selection } from "./scene";
import { find, jump, ordinal } from "./search";
import type { Timeline } from "./timeline";
import { count, duration } from "../shared/units";

const PAUSE_MS = 120;

export class SearchBox {
  readonly element: HTMLElement;
  private readonly input = h("input", { type: "search", placeholder: "search operators, shapes, requests", "aria-label": "search" });
  private readonly result = h("output", { "aria-live": "polite" });
  private pause = 0;
  private request = -1;

  constructor(private readonly timeline: Timeline) {
    const previous = button("\u2039", () => this.jump(-1), "the match before (N)");
    const next = button("\u203a", () => this.jump(1), "the next match (n)");
    this.element = h("div", { class: "search", role: "search" }, this.input, previous, next, this.result);
    this.input.addEventListener("input", () => this.later());
    this.input.addEventListener("keydown", (event) => this.key(event));
  }

  act(action: "focus" | "next" | "previous"): void {
    if (action === "focus") this.input.focus();
    else this.jump(action === "next" ? 1 : -1);
  }

  use(text: string): void {
    this.input.value = text;
    this.search();
    this.timeline.canvas.focus({ preventScroll: true });
  }

  private key(event: KeyboardEvent): void {
    event.stopPropagation();
    if (event.key === "Enter") this.jump(event.shiftKey ? -1 : 1);
    if (event.key !== "Escape") return;
    this.input.value = "";
    this.search();
    this.timeline.canvas.focus({ preventScroll: true });
  }

  private later(): void {
    clearTimeout(this.pause);
    this.pause = window.setTimeout(() => this.search(), PAUSE_MS);
  }

  private search(): void {
    clearTimeout(this.pause);
    this.pause = 0;
    this.timeline.scene.search = find(this.timeline.scene, this.input.value);
    this.request = -1;
    this.tell();
    this.timeline.redraw();
  }

  private jump(direction: 1 | -1): void {
    if (this.pause) this.search();
    const { scene } = this.timeline;
    if (!scene.search?.count) return;
    const found = scene.search.index.event.length ? this.event(direction) : this.nextRequest(direction);
    this.timeline.select(found);
    this.timeline.look();
    this.tell();
  }

  private event(direction: 1 | -1): Selection {
    const { search, camera } = this.timeline.scene;
    return { kind: "event", event: jump(search!, direction, camera.start) };
  }

  private nextRequest(direction: 1 | -1): Selection {
    const { requests } = this.timeline.scene.search!;
    this.request = (this.request + direction + requests.length) % requests.length;
    return { kind: "request", request: requests[this.request]! };
  }

  private tell(): void {
    const { search } = this.timeline.scene;
    if (!search) this.result.textContent = "";
    else if (!search.count) this.result.textContent = "not found";
    else {
      const at = search.index.event.length ? ordinal(search) : this.request + 1;
      this.result.textContent = `${at ? `${count(at)} of ` : ""}${count(search.count)} \u00b7 ${duration(search.totalUs)}`;
    }
  }
}

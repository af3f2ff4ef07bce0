// Stop the endpoint, after asking once more in the same place.

import { button, h } from "../../shared/dom";
import type { Tools } from "./drawer";

export class Stopping {
  readonly element: HTMLElement;
  private readonly stop = button("Stop", () => this.asked(true), "stop serving this endpoint");
  private readonly yes = button("yes", () => void this.stopped());
  private readonly no = button("no", () => this.asked(false));
  private readonly words = h("span", {}, "Stop it?");
  private readonly question = h("span", { class: "question", role: "group", "aria-label": "Stop it?", hidden: "" }, this.words, this.yes, this.no);

  constructor(private readonly tools: Tools) {
    this.element = h("span", { class: "stopping", onkeydown: (event: KeyboardEvent) => this.key(event) }, this.stop, this.question);
  }

  update(): void {
    const { presence } = this.tools.store;
    this.stop.disabled = this.yes.disabled = presence !== "live";
    if (presence === "gone") this.show(false);
  }

  private asked(isAsked: boolean): void {
    this.show(isAsked);
    (isAsked ? this.no : this.stop).focus();
  }

  private show(isAsked: boolean): void {
    this.stop.hidden = isAsked;
    this.question.hidden = !isAsked;
    if (!isAsked) this.words.textContent = "Stop it?";
  }

  private key(event: KeyboardEvent): void {
    if (event.key !== "Escape" || this.question.hidden) return;
    event.stopPropagation();
    this.asked(false);
  }

  private async stopped(): Promise<void> {
    this.words.textContent = "stopping\u2026";
    try {
      await this.tools.ask.json("DELETE", "");
    } catch (error) {
      this.words.textContent = (error as Error).message;
    }
  }
}

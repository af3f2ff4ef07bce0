// What opens below the panel, one at a time.

import { copyButton } from "../../shared/clipboard";
import { button, h } from "../../shared/dom";
import type { Ask } from "../ask";
import type { Store } from "../store";

/** What a drawer works with. */
export interface Tools {
  name: string;
  store: Store;
  ask: Ask;
}

export interface Drawer {
  readonly label: string;
  readonly content: HTMLElement;
  /** Called when it comes into view, and when it goes. */
  opened?(): void;
  closed?(): void;
  /** Called when something is new, while it is in view. */
  update?(): void;
}

let ids = 0;

/** The row of buttons, and what they open. Escape closes it. */
export class Drawers {
  readonly element: HTMLElement;
  private readonly buttons: HTMLButtonElement[];
  private readonly frames: HTMLElement[];
  private open: number | null = null;

  /** `last` stands at the end of the row. */
  constructor(
    private readonly drawers: Drawer[],
    last: HTMLElement,
  ) {
    this.frames = drawers.map(({ label, content }) => h("section", { class: "drawer", id: `nbserve-drawer-${++ids}`, "aria-label": label, hidden: "" }, content));
    this.buttons = drawers.map(({ label }, i) => button(label, () => this.show(this.open === i ? null : i)));
    this.buttons.forEach((each, i) => each.setAttribute("aria-controls", this.frames[i]!.id));
    this.element = h("footer", { onkeydown: (event: KeyboardEvent) => this.key(event) }, h("p", { class: "toolbar" }, ...this.buttons, last), ...this.frames);
    this.mark();
  }

  update(): void {
    if (this.open !== null) this.drawers[this.open]!.update?.();
  }

  stop(): void {
    this.show(null);
  }

  private show(which: number | null): void {
    if (which === this.open) return;
    if (this.open !== null) this.drawers[this.open]!.closed?.();
    this.open = which;
    this.mark();
    if (which === null) return;
    this.drawers[which]!.opened?.();
    this.update();
  }

  private mark(): void {
    this.frames.forEach((frame, i) => (frame.hidden = i !== this.open));
    this.buttons.forEach((each, i) => each.setAttribute("aria-expanded", String(i === this.open)));
  }

  private key(event: KeyboardEvent): void {
    if (event.key !== "Escape" || this.open === null) return;
    const from = this.buttons[this.open]!;
    this.show(null);
    from.focus();
  }
}

/** Where a drawer says how it goes; what went wrong stands out. */
export class Saying {
  readonly element = h("p", { class: "saying", role: "status" });

  say(text: string, isBad = false): void {
    if (this.element.textContent !== text) this.element.textContent = text;
    this.element.classList.toggle("bad", isBad);
  }
}

/** A small label and its control. */
export function field(label: string, control: HTMLElement, unit = ""): HTMLElement {
  return h("label", { class: "field" }, h("span", {}, label), control, unit ? h("small", {}, unit) : null);
}

export function numberInput(label: string, value: number, least: number, most: number): HTMLInputElement {
  return h("input", { type: "number", value, min: least, max: most, step: "any", "aria-label": label });
}

/** A line to copy, and what it is for. */
export function command(line: string, meaning = ""): HTMLElement {
  return h("p", { class: "command" }, h("code", {}, line), copyButton("copy", () => line, `copy: ${line}`), meaning ? h("small", {}, meaning) : null);
}

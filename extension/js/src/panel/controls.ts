// The knobs.

import { copyButton } from "../shared/clipboard";
import { button, h } from "../shared/dom";
import { Choice, NumberKnob, SliderKnob, Stepper } from "./knobs";
import { serveLine } from "./line";
import { BATCH_SIZES, DELAYS_MS } from "./scale";
import { say } from "./tile";
import type { Tuner } from "./tuner";

export class Controls {
  readonly element: HTMLElement;
  private readonly undo: HTMLButtonElement;
  private readonly knobs: { element: HTMLElement; update(): void; enable(isOn: boolean): void }[];
  private readonly delay: SliderKnob;

  constructor(
    private readonly tuner: Tuner,
    name: string,
    typed: string,
  ) {
    this.delay = new SliderKnob(tuner, "max_batch_delay_ms", { label: "Max batch delay", unit: "ms", hint: "fixed window, from the oldest request", stops: DELAYS_MS, least: 0 });
    this.knobs = [
      new Choice(tuner, "policy", "Policy", { adaptive: "waits only for clients that come back", window: "waits for the max batch delay" }),
      new SliderKnob(tuner, "max_batch_size", { label: "Max batch size", unit: "", hint: "most requests in one batch", stops: BATCH_SIZES, least: 1 }),
      this.delay,
      new Stepper(tuner, "workers", "Workers", "processes that run the handler"),
      new NumberKnob(tuner, "queue_size", { label: "Queue size", unit: "", hint: "beyond it: 503", least: 1 }),
      new NumberKnob(tuner, "response_timeout_s", { label: "Time-out", unit: "s", hint: "for one batch", least: 0.001 }),
    ];
    this.undo = button("Undo", () => tuner.undo());
    const copy = copyButton("Copy as %%serve options", () => serveLine(name, typed, tuner.settings), "copy the line for the cell with the settings as they are now");
    const actions = h("p", { class: "actions" }, this.undo, copy);
    this.element = h("section", { class: "controls", "aria-label": "Settings" }, ...this.knobs.map((knob) => knob.element), actions);
  }

  update(isThere: boolean): void {
    for (const knob of this.knobs) {
      knob.enable(isThere);
      knob.update();
    }
    if (isThere) this.delay.enable(this.tuner.knob("policy").value === "window");
    const change = this.tuner.lastChange;
    this.undo.disabled = !isThere || !change;
    say(this.undo, "Undo", change ? `${change.name} back to ${change.before} (Ctrl+Z)` : "nothing was changed here yet");
  }
}

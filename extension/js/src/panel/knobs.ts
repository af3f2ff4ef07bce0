// The knobs one by one: each shows its value, whether it is on its way, and why it was refused.

import { button, h } from "../shared/dom";
import type { Knob } from "./knob";
import { positionOf, stopAt, stopFrom } from "./scale";
import { say } from "./tile";
import type { Tuner } from "./tuner";

let ids = 0;

/** A label, the control, and a line that says what it is for or what is wrong. */
class KnobView {
  readonly element: HTMLElement;
  protected readonly id = `nbserve-knob-${++ids}`;
  protected readonly knob: Knob;
  private readonly hint = h("span");
  private readonly line: HTMLElement;

  constructor(
    protected readonly tuner: Tuner,
    protected readonly name: string,
    label: string,
    private readonly told: string,
  ) {
    this.knob = tuner.knob(name);
    this.line = h("p", { class: "hint", id: `${this.id}-hint`, role: "status" }, this.hint);
    this.element = h("div", { class: `knob ${name}`, role: "group", "aria-label": label }, h("label", { for: this.id }, label));
  }

  update(): void {
    const { error, isPending } = this.knob;
    const told = this.purpose();
    this.element.classList.toggle("pending", isPending);
    this.element.classList.toggle("refused", !!error);
    this.element.setAttribute("aria-busy", String(isPending));
    say(this.hint, error ?? (isPending ? "setting\u2026" : told), error ?? told);
  }

  enable(isOn: boolean): void {
    this.element.classList.toggle("off", !isOn);
    for (const control of this.element.querySelectorAll<HTMLInputElement | HTMLButtonElement>("input, button")) control.disabled = !isOn;
  }

  protected append(...controls: HTMLElement[]): void {
    this.element.append(...controls, this.line);
  }

  /** What the knob is for. */
  protected purpose(): string {
    return this.told;
  }

  protected move(value: number | string): void {
    this.tuner.move(this.name, value);
  }

  /** While a hand is on a control, values from elsewhere do not move it. */
  protected hold(control: HTMLElement, begin: string, end: string[]): void {
    const release = (): void => {
      this.knob.isHeld = false;
      this.update();
    };
    control.addEventListener(begin, () => void (this.knob.isHeld = true));
    for (const name of end) control.addEventListener(name, release);
  }
}

export interface Looks {
  label: string;
  unit: string;
  hint: string;
  least: number;
}

/** A number to type; it is sent when it is done. */
export class NumberKnob extends KnobView {
  protected readonly input: HTMLInputElement;

  constructor(tuner: Tuner, name: string, looks: Looks) {
    super(tuner, name, looks.label, looks.hint);
    const described = { "aria-describedby": `${this.id}-hint`, "aria-label": looks.label };
    this.input = h("input", { id: this.id, type: "number", min: looks.least, step: "any", ...described, onchange: () => this.typed() });
    this.input.addEventListener("input", () => void (this.knob.isHeld = true));
    this.input.addEventListener("blur", () => this.release());
    this.input.addEventListener("keydown", (event) => this.pressed(event));
    this.append(...this.controls(looks));
  }

  override update(): void {
    super.update();
    const text = String(this.knob.value);
    if (!this.knob.isHeld && this.input.value !== text) this.input.value = text;
  }

  protected controls(looks: Looks): HTMLElement[] {
    return [h("span", { class: "entry" }, this.input, looks.unit ? h("small", {}, looks.unit) : null)];
  }

  private typed(): void {
    if (!this.knob.isHeld) return;
    this.knob.isHeld = false;
    if (Number.isFinite(this.input.valueAsNumber)) this.move(this.input.valueAsNumber);
    else this.update();
  }

  private release(): void {
    this.knob.isHeld = false;
    this.update();
  }

  /** Enter is done, Escape gives up what was typed. Not every page leaves it to the browser to take Enter for a change. */
  private pressed(event: KeyboardEvent): void {
    if (event.key === "Enter") this.typed();
    if (event.key !== "Escape" || !this.knob.isHeld) return;
    event.stopPropagation();
    this.release();
  }
}

/** The same with a slider, whose stops are further apart the higher they are. */
export class SliderKnob extends NumberKnob {
  private readonly slider: HTMLInputElement;
  private readonly stops: number[];

  constructor(tuner: Tuner, name: string, looks: Looks & { stops: number[] }) {
    super(tuner, name, looks);
    this.stops = looks.stops;
    this.slider = this.element.querySelector<HTMLInputElement>("input[type=range]")!;
    this.slider.max = String(this.stops.length - 1);
    this.slider.addEventListener("input", () => this.slid(stopAt(this.stops, this.slider.valueAsNumber)));
    this.slider.addEventListener("keydown", (event) => this.key(event));
    this.hold(this.slider, "pointerdown", ["pointerup", "pointercancel", "blur"]);
  }

  override update(): void {
    super.update();
    if (this.slider && !this.knob.isHeld) this.place(Number(this.knob.value));
  }

  protected override controls(looks: Looks): HTMLElement[] {
    const slider = h("input", { type: "range", min: 0, step: "any", "aria-label": looks.label, "aria-describedby": `${this.id}-hint` });
    return [...super.controls(looks), slider];
  }

  private slid(value: number): void {
    this.place(value);
    this.input.value = String(value);
    this.move(value);
  }

  private place(value: number): void {
    const position = positionOf(this.stops, value);
    if (this.slider.valueAsNumber !== position) this.slider.value = String(position);
    this.slider.style.setProperty("--at", `${(100 * position) / (this.stops.length - 1)}%`);
    this.slider.setAttribute("aria-valuetext", String(value));
  }

  private key(event: KeyboardEvent): void {
    const value = Number(this.knob.value);
    const steps: Record<string, number> = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 3, PageDown: -3, Home: -99, End: 99 };
    const by = steps[event.key];
    if (!by) return;
    event.preventDefault();
    this.slid(stopFrom(this.stops, value, by));
  }
}

/** A whole number that goes up and down by one. */
export class Stepper extends KnobView {
  private readonly output = h("output", { id: this.id });
  private readonly fewer = button("\u2212", () => this.step(-1));
  private readonly more = button("+", () => this.step(1));

  constructor(tuner: Tuner, name: string, label: string, hint: string) {
    super(tuner, name, label, hint);
    this.fewer.setAttribute("aria-label", `fewer ${label.toLowerCase()}`);
    this.more.setAttribute("aria-label", `more ${label.toLowerCase()}`);
    this.append(h("span", { class: "stepper" }, this.fewer, this.output, this.more));
  }

  override update(): void {
    super.update();
    say(this.output, String(this.knob.value));
    if (!this.element.classList.contains("off")) this.fewer.disabled = Number(this.knob.value) <= 1;
  }

  private step(by: number): void {
    this.move(Math.max(1, Number(this.knob.value) + by));
  }
}

/** One of a few words. */
export class Choice extends KnobView {
  private readonly inputs: HTMLInputElement[];

  constructor(tuner: Tuner, name: string, label: string, private readonly choices: Record<string, string>) {
    super(tuner, name, label, "");
    this.element.setAttribute("role", "radiogroup");
    this.inputs = Object.keys(choices).map((value) =>
      h("input", { type: "radio", name: this.id, value, "aria-describedby": `${this.id}-hint`, onchange: () => this.move(value) }),
    );
    const labels = this.inputs.map((input) => h("label", { title: choices[input.value] }, input, h("span", {}, input.value)));
    this.append(h("span", { class: "segments" }, ...labels));
  }

  override update(): void {
    super.update();
    for (const input of this.inputs) input.checked = input.value === this.knob.value;
  }

  protected override purpose(): string {
    return this.choices[String(this.knob.value)] ?? "";
  }
}

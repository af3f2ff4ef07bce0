// All knobs: sends what a hand has settled on, takes what the server says, and takes changes back. No DOM here.

import { Knob } from "./knob";
import { DEFAULTS } from "./line";
import type { Setting, Settings } from "./protocol";
import { type Change, UndoStack } from "./undo";

export const DEBOUNCE_MS = 150;

export class Tuner {
  readonly knobs = new Map(Object.entries(DEFAULTS).map(([name, value]) => [name, new Knob(value)]));
  private readonly undone = new UndoStack();
  private readonly timers = new Map<string, number>();
  /** The knobs that move because a change is taken back. */
  private readonly undoing = new Set<string>();

  /** `patch` sends settings and gives those that hold then; `onchange` is called when something looks different. */
  constructor(
    private readonly patch: (settings: Settings) => Promise<Settings>,
    private readonly onchange: () => void,
  ) {}

  get settings(): Settings {
    return Object.fromEntries([...this.knobs].map(([name, knob]) => [name, knob.value]));
  }

  get lastChange(): Change | null {
    return this.undone.top;
  }

  get isHeld(): boolean {
    return [...this.knobs.values()].some((knob) => knob.isHeld);
  }

  knob(name: string): Knob {
    return this.knobs.get(name)!;
  }

  /** A person moved a knob: it is sent once the hand rests. */
  move(name: string, value: Setting): void {
    this.undoing.delete(name);
    this.later(name, value);
  }

  undo(): void {
    const change = this.undone.pop();
    if (!change) return;
    this.undoing.add(change.name);
    this.later(change.name, change.before);
  }

  /** The stream's settings. */
  hear(settings: Settings): void {
    for (const [name, knob] of this.knobs) if (name in settings) knob.hear(settings[name]!);
  }

  stop(): void {
    for (const timer of this.timers.values()) clearTimeout(timer);
  }

  private later(name: string, value: Setting): void {
    this.knob(name).move(value);
    clearTimeout(this.timers.get(name));
    this.timers.set(name, setTimeout(() => void this.send(name), DEBOUNCE_MS));
    this.onchange();
  }

  private async send(name: string): Promise<void> {
    const knob = this.knob(name);
    const before = knob.known;
    const after = knob.send();
    const isUndo = this.undoing.has(name);
    this.onchange();
    if (after === null) return;
    try {
      const settings = await this.patch(this.withPolicy(name, after));
      const { [name]: taken = after, ...others } = settings;
      knob.accept(taken);
      if (!isUndo) this.undone.push({ name, before, after: knob.known }, Date.now());
      this.hear(others);
    } catch (error) {
      knob.refuse((error as Error).message);
    }
    void this.send(name);
  }

  /** A delay without a policy would select `window`. */
  private withPolicy(name: string, value: Setting): Settings {
    return name === "max_batch_delay_ms" ? { [name]: value, policy: this.knob("policy").value } : { [name]: value };
  }
}

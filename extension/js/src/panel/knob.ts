// One setting under a person's hand: what is shown while a value travels to the server and back. Pure.

import type { Setting } from "./protocol";

/** How many lines of the stream may still tell of the time before an answer. */
const STALE_LINES = 2;

export class Knob {
  /** Why the server refused the last value. */
  error: string | null = null;
  /** A hand is on it: values from elsewhere wait. */
  isHeld = false;
  private wanted: Setting | null = null;
  private sent: Setting | null = null;
  private staleLines = 0;

  constructor(private confirmed: Setting) {}

  /** What the knob stands at. */
  get value(): Setting {
    return this.wanted ?? this.confirmed;
  }

  /** What the server was last known to have. */
  get known(): Setting {
    return this.confirmed;
  }

  get isPending(): boolean {
    return this.wanted !== null || this.sent !== null;
  }

  move(value: Setting): void {
    this.wanted = value;
    this.error = null;
  }

  /** The value to send now, if any: one at a time is on its way, and the last one wins. */
  send(): Setting | null {
    if (this.sent !== null || this.wanted === null) return null;
    if (this.wanted === this.confirmed) {
      this.wanted = null;
      return null;
    }
    this.sent = this.wanted;
    return this.sent;
  }

  /** The server took what was sent, and has `value` now. */
  accept(value: Setting): void {
    if (this.wanted === this.sent) this.wanted = null;
    this.sent = null;
    this.confirmed = value;
    this.staleLines = STALE_LINES;
  }

  refuse(error: string): void {
    if (this.wanted === this.sent) {
      this.wanted = null;
      this.error = error;
    }
    this.sent = null;
  }

  /** The stream tells what the server has. */
  hear(value: Setting): void {
    if (value === this.confirmed) {
      this.staleLines = 0;
    } else if (this.sent === null && this.staleLines-- <= 0) {
      this.confirmed = value;
      this.error = null;
    }
  }
}

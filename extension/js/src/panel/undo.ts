// The changes made in this panel, to be taken back one by one. Pure: callers pass `now`.

import type { Setting } from "./protocol";

export interface Change {
  name: string;
  before: Setting;
  after: Setting;
}

/** Changes of one setting that follow each other so closely are one. */
const TOGETHER_MS = 1500;

export class UndoStack {
  private readonly changes: (Change & { atMs: number })[] = [];

  get top(): Change | null {
    return this.changes[this.changes.length - 1] ?? null;
  }

  push(change: Change, nowMs: number): void {
    const top = this.changes[this.changes.length - 1];
    if (top && top.name === change.name && nowMs - top.atMs < TOGETHER_MS) {
      top.after = change.after;
      top.atMs = nowMs;
      if (top.before === top.after) this.changes.pop();
    } else if (change.before !== change.after) {
      this.changes.push({ ...change, atMs: nowMs });
    }
  }

  pop(): Change | null {
    return this.changes.pop() ?? null;
  }
}

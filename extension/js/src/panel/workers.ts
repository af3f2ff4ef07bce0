// A row for each worker: what it does, what it uses, and what went wrong with it.

import { copyButton } from "../shared/clipboard";
import { h } from "../shared/dom";
import { bytes, count } from "../shared/units";
import type { Held, WorkerStatus } from "./protocol";
import { NOTHING } from "./quantities";
import { say } from "./tile";

const COLUMNS = ["worker", "state", "device", "threads", "CPU", "memory", "batches", "restarts", "PID", ""] as const;
const NUMBERS = new Set<string>(["worker", "threads", "CPU", "memory", "batches", "restarts", "PID"]);

export class Workers {
  readonly element: HTMLElement;
  private readonly body = h("tbody", { role: "rowgroup" });
  private readonly rows: Row[] = [];

  constructor(private readonly name: string) {
    const heads = COLUMNS.map((column) => h("th", { role: "columnheader", scope: "col", class: kindOf(column) }, column || "last error"));
    const head = h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...heads));
    this.element = h("section", { class: "crew", "aria-label": "Workers" }, h("table", { role: "table" }, head, this.body));
  }

  update(workers: WorkerStatus[]): void {
    while (this.rows.length > workers.length) this.rows.pop()!.element.remove();
    while (this.rows.length < workers.length) {
      const row = new Row(this.name);
      this.rows.push(row);
      this.body.append(row.element);
    }
    workers.forEach((worker, i) => this.rows[i]!.show(worker));
  }
}

class Row {
  readonly element: HTMLElement;
  private readonly cells = COLUMNS.map((column) => h("td", { role: "cell", class: kindOf(column), "data-name": column }));
  private readonly note: Note;

  constructor(name: string) {
    this.note = new Note(name);
    this.cells[COLUMNS.length - 1]!.append(this.note.element);
    this.element = h("tr", { role: "row" }, ...this.cells);
  }

  show(worker: WorkerStatus): void {
    const state = stateOf(worker);
    const role = worker.role === "worker" ? "" : ` ${worker.role}`;
    const texts = [
      `${worker.index}${role}`,
      state,
      worker.device || NOTHING,
      String(worker.threads),
      `${Math.round(worker.cpu_percent)} %`,
      bytes(worker.rss_bytes),
      count(worker.batches),
      String(worker.restarts),
      String(worker.pid ?? NOTHING),
    ];
    texts.forEach((text, i) => say(this.cells[i]!, text));
    this.cells[1]!.className = `state ${toneOf(worker.state)}`;
    this.cells[1]!.title = worker.profiling ? "its profile is being recorded" : "";
    this.note.show(worker);
  }
}

/** Where a held worker stands and how to get to it, or else the last error. */
class Note {
  readonly element: HTMLElement;
  private readonly text = h("span", { class: "text" });
  private readonly copies: HTMLElement;
  private worker = 0;

  constructor(name: string) {
    this.copies = h(
      "span",
      { class: "copies", hidden: "" },
      copyButton("%serve debug", () => debugLine(name, this.worker), "copy the line that attaches in the notebook"),
      copyButton("nbserve attach", () => attachLine(name, this.worker), "copy the line that attaches in a terminal"),
    );
    this.element = h("div", { class: "note" }, this.text, this.copies);
  }

  show(worker: WorkerStatus): void {
    this.worker = worker.index;
    this.copies.hidden = !worker.held || !!worker.held.debugger;
    this.element.classList.toggle("bad", !worker.held && !!worker.last_error);
    if (worker.held) say(this.text, placeOf(worker.held), placeOf(worker.held));
    else say(this.text, errorOf(worker), worker.last_error ?? "");
  }
}

export function debugLine(name: string, worker: number): string {
  return `%serve debug ${name} --worker ${worker}`;
}

export function attachLine(name: string, worker: number): string {
  return `nbserve attach ${name} --worker ${worker}`;
}

export function placeOf(held: Held): string {
  const who = held.debugger ? `, debugged by ${held.debugger}` : "";
  return `at ${held.file}, line ${held.line} in ${held.function}${who}`;
}

/** The last line of an error, which says what it is, after the line of the cell. */
function errorOf(worker: WorkerStatus): string {
  const text = worker.last_error?.trim().split("\n").pop() ?? "";
  return worker.last_error_place ? `${worker.last_error_place}: ${text}` : text;
}

function stateOf(worker: WorkerStatus): string {
  return worker.state === "DEAD" ? "restarting" : worker.state.toLowerCase();
}

/** What a state is for whoever only sees its colour. */
export function toneOf(state: string): string {
  if (["READY", "BUSY"].includes(state.toUpperCase())) return "good";
  return ["HELD", "STARTING", "DRAINING"].includes(state.toUpperCase()) ? "waiting" : "bad";
}

function kindOf(column: string): string {
  return NUMBERS.has(column) ? "number" : column || "last";
}

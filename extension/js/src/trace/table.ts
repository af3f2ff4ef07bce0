// The table of operators, sortable by each column.

import { h } from "../shared/dom";
import type { OpRow } from "./model";
import { shortName } from "./names";
import { count, duration, percent } from "../shared/units";

type Key = "name" | "device" | "self_us" | "total_us" | "calls" | "share";

const COLUMNS: [key: Key, label: string, title: string][] = [
  ["name", "operator", "operator, launch or kernel"],
  ["device", "on", "CPU or GPU"],
  ["self_us", "self", "time in it, without the operators that it called"],
  ["share", "share", "self time as a part of all self time on the CPU, or on the GPU"],
  ["total_us", "total", "time in it and in what it called"],
  ["calls", "calls", "how often it ran"],
];
const SHOWN = 300;

/** A table of `rows`; a click on a name searches for it. */
export class OpTable {
  readonly element = h("div", { class: "optable", tabindex: 0, role: "region", "aria-label": "table of operators" });
  private rows: OpRow[] = [];
  private key: Key = "self_us";
  private isAscending = false;

  constructor(private readonly onname: (name: string) => void) {}

  show(rows: OpRow[]): void {
    this.rows = rows;
    this.render();
  }

  private sort(key: Key): void {
    this.isAscending = key === this.key ? !this.isAscending : key === "name" || key === "device";
    this.key = key;
    this.render();
  }

  private render(): void {
    const rows = sorted(this.rows, this.key, this.isAscending);
    const body = h("tbody", {}, ...rows.slice(0, SHOWN).map((row) => this.row(row)));
    const more = rows.length > SHOWN ? h("p", {}, `and ${count(rows.length - SHOWN)} more`) : null;
    const table = h("table", {}, h("thead", {}, h("tr", {}, ...COLUMNS.map((column) => this.heading(...column)))), body);
    this.element.replaceChildren(table, ...(more ? [more] : []));
  }

  private heading(key: Key, label: string, title: string): HTMLElement {
    const isSorted = key === this.key;
    const arrow = isSorted ? (this.isAscending ? " \u25b4" : " \u25be") : "";
    const sort = isSorted ? (this.isAscending ? "ascending" : "descending") : undefined;
    const button = h("button", { type: "button", title, onclick: () => this.sort(key) }, label + arrow);
    return h("th", { class: isText(key) ? "text" : "number", "aria-sort": sort, scope: "col" }, button);
  }

  private row(row: OpRow): HTMLElement {
    const name = h("button", { type: "button", class: "link", title: row.name, onclick: () => this.onname(row.name) }, cppless(row.name));
    const told = row.name === "nbserve.batch" ? "its own time is outside of operators" : row.shapes;
    const shapes = told ? h("small", { title: told }, told) : null;
    const bar = h("i", { style: `width: ${Math.min(100, row.share * 100).toFixed(1)}%` });
    return h(
      "tr",
      {},
      h("td", { class: "text name" }, name, shapes),
      h("td", { class: "text" }, row.device.toUpperCase()),
      h("td", { class: "number" }, duration(row.self_us)),
      h("td", { class: "number share" }, bar, h("span", {}, percent(row.share))),
      h("td", { class: "number" }, duration(row.total_us)),
      h("td", { class: "number" }, count(row.calls)),
    );
  }
}

/** Names of C++ kernels are too long to be read. */
function cppless(name: string): string {
  return name.includes("<") ? shortName(name) : name;
}

function isText(key: Key): boolean {
  return key === "name" || key === "device";
}

function sorted(rows: OpRow[], key: Key, isAscending: boolean): OpRow[] {
  const sign = isAscending ? 1 : -1;
  return rows.slice().sort((a, b) => {
    const [one, other] = [a[key], b[key]];
    return sign * (typeof one === "number" ? one - (other as number) : one.localeCompare(other as string));
  });
}

// The whole viewer: the summary above, then tabs with the timeline, the flame graph and the table.

import { chromeTrace } from "./chrome";
import { button, h } from "../shared/dom";
import { Details } from "./details";
import { familyNamed } from "./families";
import { Flame } from "./flame";
import { applyTheme, legend } from "./legend";
import { placesTable } from "./memory";
import type { Trace } from "./model";
import { openInPerfetto, perfettoUrl } from "./perfetto";
import { Scene } from "./scene";
import { SearchBox } from "./searchbox";
import { rangeOf, sumRange } from "./select";
import { findings, summary } from "./summary";
import { OpTable } from "./table";
import { Tabs } from "./tabs";
import { followTheme, LIGHT, type Theme } from "./theme";
import { Timeline } from "./timeline";
import { operatorTree, stackTree } from "./tree";
import { duration } from "../shared/units";

export class App {
  readonly scene: Scene;
  readonly timeline: Timeline;
  private readonly search: SearchBox;
  private readonly details: Details;
  private readonly operators = new Flame(LIGHT);
  private readonly stacks = new Flame(LIGHT);
  private readonly table = new OpTable((name) => this.searchFor(name));
  private readonly tableTitle = h("p", { class: "caption" });
  private readonly flameTitle = h("p", { class: "caption" });
  private readonly tabs: Tabs;
  private readonly colours = h("style");

  constructor(private readonly trace: Trace) {
    this.scene = new Scene(trace);
    this.timeline = new Timeline(this.scene, () => this.selected(), (action) => this.search.act(action));
    this.search = new SearchBox(this.timeline);
    this.details = new Details((name) => this.searchFor(name));
    this.tabs = new Tabs(this.pages(), () => this.refresh());
    followTheme((theme) => this.use(theme));
    this.refresh();
  }

  mount(root: HTMLElement): void {
    const { header } = this.trace;
    const actions = h("div", { class: "actions" }, button("Download trace", () => this.download(), "Chrome trace JSON: Perfetto and chrome://tracing open it"));
    const bar = h("nav", { class: "bar" }, this.tabs.buttons, this.search.element, actions);
    const notes = header.notes.length ? [h("ul", { class: "notes" }, ...header.notes.map((note) => h("li", {}, note)))] : [];
    const found = findings(header);
    root.replaceChildren(
      this.colours,
      summary(header, (request) => this.showRequest(request)),
      ...(found ? [found] : []),
      bar,
      this.tabs.pages,
      this.details.element,
      ...notes,
    );
    void this.offerPerfetto(actions);
    this.timeline.redraw();
  }

  private pages(): [label: string, page: HTMLElement][] {
    const pages: [string, HTMLElement][] = [
      ["Timeline", h("div", {}, this.timeline.element, legend(this.scene), keys())],
      ["Flame graph", h("div", {}, this.flameTitle, this.operators.element)],
    ];
    const { stacks } = this.trace.header;
    if (Object.keys(stacks).length) {
      const caption = h("p", { class: "caption" }, "Python functions, sampled while batches ran: the wider, the more time. Click a box to look closer.");
      this.stacks.show(stackTree(stacks, familyNamed("python")));
      pages.push(["Python stacks", h("div", {}, caption, this.stacks.element)]);
    }
    pages.push(["Operators", h("div", {}, this.tableTitle, this.table.element)]);
    const places = placesTable(this.trace.header.memory);
    if (places) {
      const caption = "Python's memory by the line that allocated it, while this was recorded.";
      pages.push(["Memory", h("div", {}, h("p", { class: "caption" }, caption), places)]);
    }
    return pages;
  }

  private use(theme: Theme): void {
    applyTheme(theme, this.colours);
    this.timeline.use(theme);
    this.operators.use(theme);
    this.stacks.use(theme);
  }

  private selected(): void {
    this.details.show(this.scene);
    this.refresh();
  }

  /** Fill the tab that is open, for what is selected. */
  private refresh(): void {
    const { selection } = this.scene;
    const range = selection.kind === "event" ? null : rangeOf(this.scene, selection);
    const what = range && selection.kind === "range" ? `the selected ${duration(range.end - range.start)}` : selection.kind === "request" ? "the batch of the selected request" : "the whole recording";
    if (this.tabs.open === "Operators") {
      this.tableTitle.textContent = `Operators and kernels of ${what}.`;
      this.table.show(this.rows());
    }
    if (this.tabs.open === "Flame graph") {
      this.flameTitle.textContent = `Operators of ${what}, each below the one that called it: the wider, the more time. Click a box to look closer.`;
      this.operators.show(this.tree());
    }
  }

  private rows(): ReturnType<typeof sumRange> {
    const { selection } = this.scene;
    if (selection.kind === "range") return sumRange(this.scene, selection.range);
    if (selection.kind === "request") return sumRange(this.scene, this.everything(), this.scene.lit ?? this.scene.index);
    return this.trace.header.ops;
  }

  private tree(): ReturnType<typeof operatorTree> {
    const { selection, trace, family } = this.scene;
    if (selection.kind === "range") {
      const { start, end } = selection.range;
      const { events } = trace;
      const isInside = (i: number): boolean => events.start[i]! < end && events.start[i]! + events.duration[i]! > start;
      return operatorTree(trace, family, isInside, selection.range);
    }
    if (selection.kind !== "request") return operatorTree(trace, family, () => true, null);
    const batch = trace.header.spans[selection.request]!.batch;
    return operatorTree(trace, family, (i) => trace.events.batch[i] === batch, null);
  }

  private everything(): { start: number; end: number } {
    return { start: -Infinity, end: Infinity };
  }

  private showRequest(request: number): void {
    this.tabs.show("Timeline");
    this.timeline.select({ kind: "request", request });
    this.timeline.show(rangeOf(this.scene, this.scene.selection)!);
  }

  private searchFor(name: string): void {
    this.tabs.show("Timeline");
    this.search.use(name);
  }

  private chrome(): Blob {
    return chromeTrace(this.trace, this.scene.lanes.lanes);
  }

  private download(): void {
    const url = URL.createObjectURL(this.chrome());
    h("a", { href: url, download: `${this.trace.header.endpoint}.trace.json` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }

  private async offerPerfetto(actions: HTMLElement): Promise<void> {
    const url = await perfettoUrl();
    if (!url) return;
    const open = button("Open in Perfetto", () => {
      openInPerfetto(url, `${this.trace.header.endpoint} (nbserve)`, () => this.chrome()).catch((error: Error) => {
        open.title = error.message;
        open.textContent = error.message;
      });
    });
    actions.append(open);
  }
}

function keys(): HTMLElement {
  const pairs: [string, string][] = [
    ["w s", "zoom"],
    ["a d", "move"],
    ["f", "fit"],
    ["/", "search"],
    ["[ ]", "requests"],
    ["drag the time axis", "sum a range"],
    ["ctrl + wheel", "zoom"],
  ];
  return h("p", { class: "keys" }, ...pairs.flatMap(([name, meaning]) => [h("kbd", {}, name), ` ${meaning} `]));
}

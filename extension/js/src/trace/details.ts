// What is selected, below the timeline: a request with its stages, an event with all that is known, a range's sums.

import { h } from "../shared/dom";
import type { Range } from "./model";
import type { Scene } from "./scene";
import { sumRange } from "./select";
import { stageBar } from "./stages";
import { OpTable } from "./table";
import { describe } from "./tooltip";
import { duration } from "../shared/units";

export class Details {
  readonly element = h("section", { class: "details", "aria-label": "selection", "aria-live": "polite", hidden: "" });
  private readonly table: OpTable;
  private isWaiting = false;

  constructor(onname: (name: string) => void) {
    this.table = new OpTable(onname);
  }

  show(scene: Scene): void {
    const { selection } = scene;
    this.element.hidden = selection.kind === "none";
    if (selection.kind === "range") this.showRange(scene, selection.range);
    else if (selection.kind !== "none") this.showTarget(scene, selection);
  }

  private showTarget(scene: Scene, target: { kind: "request"; request: number } | { kind: "event"; event: number }): void {
    const { title, facts } = describe(scene, target);
    const list = h("dl", {}, ...facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
    const bar = target.kind === "request" ? stageBar(scene.trace.header.spans[target.request]!.stages) : null;
    this.element.replaceChildren(h("h3", {}, title), ...(bar ? [bar] : []), list);
  }

  /** Sums are made once a frame, however fast the pointer is. */
  private showRange(scene: Scene, range: Range): void {
    const title = h("h3", {}, `${duration(range.end - range.start)} selected, from ${duration(range.start)}`);
    this.element.replaceChildren(title, this.table.element);
    if (this.isWaiting) return;
    this.isWaiting = true;
    requestAnimationFrame(() => {
      this.isWaiting = false;
      if (scene.selection.kind === "range") this.table.show(sumRange(scene, scene.selection.range));
    });
  }
}

// The lines that lead into a worker, and the last error with its line of the cell.

import { h } from "../../shared/dom";
import type { WorkerStatus } from "../protocol";
import { attachLine, debugLine, placeOf } from "../workers";
import { command, type Drawer, type Tools } from "./drawer";

export class DebugDrawer implements Drawer {
  readonly label = "Debug";
  readonly content = h("div", { class: "debug" });
  private shown = "";

  constructor(private readonly tools: Tools) {}

  update(): void {
    const workers = this.tools.store.endpoint?.workers ?? [];
    // Built anew only when it is another: buttons keep their focus.
    const key = JSON.stringify(workers.map(({ index, held, last_error, last_error_place }) => [index, held && placeOf(held), last_error, last_error_place]));
    if (key === this.shown) return;
    this.shown = key;
    const held = workers.filter((worker) => worker.held).map((worker) => this.held(worker));
    const failed = workers.filter((worker) => worker.last_error).map((worker) => this.failed(worker));
    this.content.replaceChildren(...held, ...failed, this.ways(!held.length && !failed.length));
  }

  private held(worker: WorkerStatus): HTMLElement {
    const { name } = this.tools;
    return h("div", {}, h("h4", {}, `Worker ${worker.index} is held`), h("p", {}, placeOf(worker.held!)), command(debugLine(name, worker.index), "here"), command(attachLine(name, worker.index), "in a terminal"));
  }

  private failed(worker: WorkerStatus): HTMLElement {
    const place = worker.last_error_place ? ` at ${worker.last_error_place}` : "";
    return h(
      "div",
      {},
      h("h4", {}, `The last error of worker ${worker.index}${place}`),
      h("pre", { tabindex: 0 }, worker.last_error!),
      command(`%serve debug ${this.tools.name} --last-error`, "look at its frames and variables"),
    );
  }

  private ways(isCalm: boolean): HTMLElement {
    const { name } = this.tools;
    const calm = isCalm ? h("p", {}, "No worker is held, and none has failed.") : null;
    return h(
      "div",
      {},
      calm,
      command(`%serve debug ${name} --at preprocess`, "stop in the next request"),
      command(`%serve debug ${name} --interrupt`, "stop where it is stuck"),
    );
  }
}

// Load on the endpoint for a while. It runs at the server: a page that is loaded again finds it still running.

import { button, h } from "../../shared/dom";
import { inWords, progress } from "../loading";
import type { LoadStatus } from "../protocol";
import { type Drawer, field, numberInput, Saying, type Tools } from "./drawer";

const KINDS = { clients: "clients that wait for their answers", rate: "requests/s, whether answers come or not" };
const MOST_SECONDS = 600;

export class LoadDrawer implements Drawer {
  readonly label = "Load";
  readonly content: HTMLElement;
  private readonly number = numberInput("how much load", 8, 1, 100_000);
  private readonly kind = h("select", { "aria-label": "kind of load" }, ...Object.entries(KINDS).map(([value, label]) => h("option", { value }, label)));
  private readonly seconds = numberInput("seconds of load", 30, 1, MOST_SECONDS);
  private readonly start = button("Start", () => void this.toggle());
  private readonly bar = h("progress", { max: 1, value: 0, "aria-label": "progress of the load" });
  private readonly saying = new Saying();
  private failure = "";

  constructor(private readonly tools: Tools) {
    const row = h("div", { class: "row" }, this.number, this.kind, field("for", this.seconds, "s"), this.start);
    const hint = "The recorded requests take turns. It runs at the server, so this page may be closed meanwhile.";
    this.content = h("div", {}, row, this.bar, this.saying.element, h("p", { class: "aside" }, hint));
  }

  update(): void {
    const { load, samples, presence } = this.tools.store;
    const now_s = samples.last?.time_s ?? 0;
    this.start.textContent = load?.is_running ? "Stop" : "Start";
    this.start.disabled = presence !== "live";
    this.bar.value = load ? progress(load, now_s) : 0;
    if (this.failure) this.saying.say(this.failure, true);
    else this.saying.say(load ? inWords(load, now_s) : "no load yet");
  }

  private async toggle(): Promise<void> {
    const { store, ask } = this.tools;
    const isRunning = store.load?.is_running;
    this.failure = "";
    try {
      store.load = isRunning ? await ask.json<LoadStatus>("DELETE", "/load") : await ask.json<LoadStatus>("POST", "/load", this.wish());
    } catch (error) {
      this.failure = (error as Error).message;
    }
    this.update();
  }

  private wish(): object {
    return { [this.kind.value]: this.number.valueAsNumber, seconds: this.seconds.valueAsNumber };
  }
}

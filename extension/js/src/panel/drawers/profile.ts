// Record a profile of a worker, and look at it here or in a tab of its own.

import { button, h } from "../../shared/dom";
import { type Drawer, field, numberInput, Saying, type Tools } from "./drawer";

export class ProfileDrawer implements Drawer {
  readonly label = "Profile";
  readonly content: HTMLElement;
  private readonly seconds = numberInput("seconds to record", 3, 0.1, 600);
  private readonly record = button("Record", () => void this.recorded());
  private readonly open = button("Open in a tab", () => window.open(this.url), "the same page, with all the room it wants");
  private readonly saying = new Saying();
  private readonly place = h("div", { class: "page", hidden: "" });
  private url = "";

  constructor(private readonly tools: Tools) {
    this.open.hidden = true;
    const row = h("div", { class: "row" }, field("Record", this.seconds, "s"), this.record, this.open, this.saying.element);
    this.content = h("div", {}, row, this.place);
    this.saying.say("what clients ask meanwhile, or the recorded requests when nobody asks");
  }

  private async recorded(): Promise<void> {
    this.record.disabled = true;
    this.saying.say("recording, then putting it together\u2026");
    try {
      await this.show(await this.tools.ask.blob("POST", "/profile", { seconds: this.seconds.valueAsNumber }));
      this.saying.say("");
    } catch (error) {
      this.saying.say((error as Error).message, true);
    }
    this.record.disabled = false;
  }

  private async show(page: Blob): Promise<void> {
    URL.revokeObjectURL(this.url);
    this.url = URL.createObjectURL(new Blob([page], { type: "text/html" }));
    const frame = h("iframe", { title: `profile of ${this.tools.name}`, sandbox: "allow-scripts allow-downloads allow-popups" });
    // It may not look at the page around, which says whether it is dark.
    const isLight = this.content.closest<HTMLElement>(".panel")?.dataset["theme"] !== "dark";
    frame.srcdoc = (await page.text()).replace("<body", `<body data-jp-theme-light="${isLight}"`);
    this.place.replaceChildren(frame);
    this.place.hidden = this.open.hidden = false;
  }
}

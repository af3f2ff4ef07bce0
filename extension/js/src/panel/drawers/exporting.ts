// Take the endpoint along: its bundle as one file.

import { button, h } from "../../shared/dom";
import { type Drawer, Saying, type Tools } from "./drawer";

const KEEP_MS = 60_000;

export class ExportDrawer implements Drawer {
  readonly label = "Export";
  readonly content: HTMLElement;
  private readonly download = button("Download", () => void this.downloaded());
  private readonly saying = new Saying();

  constructor(private readonly tools: Tools) {
    const told = h("p", {}, "The bundle with its tuned settings, as one .tar.gz: readable source, weights, pinned requirements. Unpacked, ", h("code", {}, "nbserve serve FOLDER"), " serves it.");
    this.content = h("div", {}, told, h("div", { class: "row" }, this.download, this.saying.element));
  }

  private async downloaded(): Promise<void> {
    this.download.disabled = true;
    this.saying.say("packing\u2026");
    try {
      const { name, store, ask } = this.tools;
      const file = `${name}-${store.endpoint?.version ?? "bundle"}.tar.gz`;
      save(await ask.blob("GET", "/bundle"), file);
      this.saying.say(`saved as ${file}`);
    } catch (error) {
      this.saying.say((error as Error).message, true);
    }
    this.download.disabled = false;
  }
}

function save(blob: Blob, file: string): void {
  const url = URL.createObjectURL(blob);
  h("a", { href: url, download: file }).click();
  setTimeout(() => URL.revokeObjectURL(url), KEEP_MS);
}

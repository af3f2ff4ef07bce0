// One page at a time.

import { h } from "../shared/dom";

export class Tabs {
  readonly buttons = h("div", { class: "tabs", role: "tablist" });
  readonly pages = h("div", { class: "pages" });
  open: string;

  constructor(
    private readonly all: [label: string, page: HTMLElement][],
    private readonly onopen: () => void,
  ) {
    this.open = all[0]![0];
    for (const [label, page] of all) {
      page.setAttribute("role", "tabpanel");
      page.setAttribute("aria-label", label);
      this.pages.append(page);
      this.buttons.append(h("button", { type: "button", role: "tab", onclick: () => this.show(label) }, label));
    }
    this.buttons.addEventListener("keydown", (event) => this.key(event));
    this.mark();
  }

  show(label: string): void {
    if (label === this.open) return;
    this.open = label;
    this.mark();
    this.onopen();
  }

  private key(event: KeyboardEvent): void {
    const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (!step) return;
    const at = this.all.findIndex(([label]) => label === this.open);
    const next = (at + step + this.all.length) % this.all.length;
    this.show(this.all[next]![0]);
    (this.buttons.children[next] as HTMLElement).focus();
  }

  private mark(): void {
    this.all.forEach(([label, page], i) => {
      const isOpen = label === this.open;
      page.hidden = !isOpen;
      this.buttons.children[i]!.setAttribute("aria-selected", String(isOpen));
      this.buttons.children[i]!.setAttribute("tabindex", isOpen ? "0" : "-1");
    });
  }
}

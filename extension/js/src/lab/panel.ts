// A tab with the live panel of an endpoint: the same module that a notebook shows, loaded from Jupyter's server.

import { URLExt } from "@jupyterlab/coreutils";
import { Widget } from "@lumino/widgets";
import { h } from "../shared/dom";
import type { Place } from "./api";

interface PanelModule {
  mount(element: HTMLElement, options: Place & { baseUrl: string }): () => void;
}

export class PanelView extends Widget {
  private hasBegun = false;
  private unmount = (): void => undefined;

  constructor(
    private readonly baseUrl: string,
    readonly place: Place,
  ) {
    super();
    this.addClass("nbserve-panel");
    // For the keyboard: a tab that is activated must have something to focus.
    this.node.tabIndex = -1;
  }

  dispose(): void {
    this.unmount();
    super.dispose();
  }

  protected onAfterAttach(): void {
    if (this.isVisible) void this.begin();
  }

  /** A restored tab in the background asks for nothing until it is looked at. */
  protected onAfterShow(): void {
    void this.begin();
  }

  protected onActivateRequest(): void {
    this.node.focus();
  }

  private async begin(): Promise<void> {
    if (this.hasBegun) return;
    this.hasBegun = true;
    const element = h("div");
    this.node.replaceChildren(element);
    try {
      const address = URLExt.join(this.baseUrl, "nbserve/static/panel.js");
      const module = (await import(/* webpackIgnore: true */ address)) as PanelModule;
      if (!this.isDisposed) this.unmount = module.mount(element, { ...this.place, baseUrl: this.baseUrl });
    } catch (error) {
      const text = `The panel cannot be shown: ${(error as Error).message}. Is nbserve-torch installed where Jupyter runs? Then restart Jupyter, and reload this page.`;
      element.replaceChildren(h("p", { role: "alert", class: "nbserve-failure" }, text));
    }
  }
}

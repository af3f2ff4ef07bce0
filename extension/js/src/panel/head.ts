// Who this is, how it is, where it answers, and whether the panel hears of it.

import { copyButton } from "../shared/clipboard";
import { h } from "../shared/dom";
import type { Carrier } from "./carrier";
import type { Store } from "./store";
import { say } from "./tile";
import { toneOf } from "./workers";

export class Head {
  readonly element: HTMLElement;
  private readonly dot = h("i", { class: "dot" });
  private readonly state = h("span", { class: "state" });
  private readonly version = h("span", { class: "version" });
  private readonly url = h("code", {});
  private readonly presence = h("p", { class: "presence", role: "status" });

  constructor(
    private readonly store: Store,
    name: string,
  ) {
    const copy = copyButton("copy", () => store.endpoint?.url ?? "", "copy the URL that takes predictions");
    this.element = h(
      "header",
      {},
      h("p", { class: "who" }, this.dot, h("b", {}, name), this.state, this.version),
      h("p", { class: "url" }, this.url, copy),
      this.presence,
    );
  }

  update(carrier: Carrier | null): void {
    const { endpoint, presence } = this.store;
    const state = presence === "gone" ? "stopped" : (endpoint?.state ?? "starting").toLowerCase();
    this.dot.className = `dot ${presence === "gone" ? "gone" : toneOf(state)}`;
    say(this.state, state);
    say(this.version, endpoint?.version ? `version ${endpoint.version}` : "");
    say(this.url, endpoint?.url ?? "", endpoint?.url ?? "");
    const text = this.words(carrier);
    say(this.presence, text, text);
  }

  private words(carrier: Carrier | null): string {
    const { presence, endpoint } = this.store;
    if (!carrier || presence === "connecting") return "connecting\u2026";
    if (presence === "lost") return carrier.silence;
    if (presence === "live") return carrier.way;
    const again = endpoint?.bundle ? `, or nbserve serve ${endpoint.bundle}` : "";
    return `to start it: run its %%serve cell again${again}`;
  }
}

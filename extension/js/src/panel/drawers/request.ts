// Send one request, recorded or typed, and see its answer and where its time went.

import { button, h } from "../../shared/dom";
import { type Body, bytesOf, readable, sizeOf, textOf } from "../bodies";
import type { Prediction, Recorded } from "../protocol";
import { millis } from "../quantities";
import { StageBar } from "../stagebar";
import { ofSpan } from "../stages";
import { type Drawer, field, Saying, type Tools } from "./drawer";

const TYPES = ["application/json", "text/plain"];
const MOST_RECORDED = 20;
const LABEL_LENGTH = 60;

export class RequestDrawer implements Drawer {
  readonly label = "Request";
  readonly content: HTMLElement;
  private readonly choice = h("select", { onchange: () => this.choose() });
  private readonly type = h("select", {}, ...TYPES.map((type) => h("option", { value: type }, type)));
  private readonly text = h("textarea", { rows: 5, spellcheck: "false", "aria-label": "body", placeholder: "[0.1, 0.2, 0.3]" });
  private readonly send = button("Send", () => void this.sent(), "Ctrl+Enter");
  private readonly saying = new Saying();
  private readonly bar = new StageBar();
  private readonly answer = h("div", { class: "answer", role: "region", "aria-label": "answer", tabindex: 0 });
  private recorded: Body[] = [];
  /** A body that is no text cannot be typed: it is sent as it is. */
  private whole: Body | null = null;

  constructor(private readonly tools: Tools) {
    this.text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) void this.sent();
    });
    const form = h("div", { class: "row" }, field("Request", this.choice), field("as", this.type), this.send);
    const request = h("div", {}, form, this.text);
    this.content = h("div", { class: "halves" }, request, h("div", {}, this.saying.element, this.bar.element, this.answer));
    this.list();
  }

  opened(): void {
    void this.load();
  }

  private async load(): Promise<void> {
    try {
      const found = await this.tools.ask.json<Recorded[]>("GET", `/recorded?last=${MOST_RECORDED}`);
      this.recorded = found.map((each) => ({ type: each.content_type, base64: each.body_base64 })).reverse();
      this.list();
      if (!this.text.value && !this.whole && this.recorded.length) {
        this.choice.value = "0";
        this.choose();
      }
    } catch (error) {
      this.saying.say((error as Error).message, true);
    }
  }

  private list(): void {
    const chosen = this.choice.value;
    const options = this.recorded.map((body, i) => h("option", { value: i }, labelOf(body)));
    this.choice.replaceChildren(h("option", { value: "" }, "typed below"), ...options);
    this.choice.value = chosen;
  }

  private choose(): void {
    const body = this.recorded[Number(this.choice.value || NaN)];
    const text = body ? textOf(body) : this.text.value;
    this.whole = body && text === null ? body : null;
    this.text.readOnly = this.type.disabled = !!this.whole;
    if (!body) return;
    this.text.value = text === null ? sizeOf(body) : body.type.includes("json") ? readable(body) : text;
    if (text !== null) this.type.value = TYPES.find((type) => body.type.startsWith(type)) ?? "text/plain";
  }

  private async sent(): Promise<void> {
    this.send.disabled = true;
    this.saying.say("waiting for the answer\u2026");
    const body = this.whole ? { body_base64: this.whole.base64, content_type: this.whole.type } : { body: this.text.value, content_type: this.type.value };
    try {
      this.show(await this.tools.ask.json<Prediction>("POST", "/predict", body));
    } catch (error) {
      this.saying.say((error as Error).message, true);
    }
    this.send.disabled = false;
  }

  private show(answer: Prediction): void {
    const body = { type: answer.content_type, base64: answer.body_base64 };
    this.saying.say(`${answer.status} in ${millis(answer.ms)} ms \u00b7 ${answer.content_type}`, answer.status >= 400);
    this.bar.show(answer.span ? ofSpan(answer.span) : {});
    this.answer.replaceChildren(body.type.startsWith("image/") ? image(body) : h("pre", {}, readable(body)));
  }
}

function image(body: Body): HTMLElement {
  return h("img", { src: URL.createObjectURL(new Blob([bytesOf(body.base64)], { type: body.type })), alt: sizeOf(body) });
}

function labelOf(body: Body): string {
  const text = textOf(body);
  const shown = text === null ? sizeOf(body) : text.replace(/\s+/g, " ");
  return shown.length > LABEL_LENGTH ? `${shown.slice(0, LABEL_LENGTH)}\u2026` : shown;
}

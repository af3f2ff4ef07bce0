// A caption, the numbers of now, and below them what they were.

import { h } from "../shared/dom";

/** Change an element's text only when it differs: what stays is not laid out again. */
export function say(element: HTMLElement, text: string, title?: string): void {
  if (element.textContent !== text) element.textContent = text;
  if (title !== undefined && element.title !== title) element.title = title;
}

/** A number in large figures, with a small word after it. */
export class Figure {
  readonly element: HTMLElement;
  private readonly number = h("b", {});
  private readonly word: HTMLElement;

  constructor(word: string, swatch = "") {
    this.word = h("small", {}, word);
    this.element = h("span", { class: "figure" }, swatch ? h("i", { class: `swatch ${swatch}` }) : null, this.number, this.word);
  }

  say(number: string, word?: string): void {
    say(this.number, number);
    if (word !== undefined) say(this.word, word);
  }

  hint(title: string): void {
    if (this.element.title !== title) this.element.title = title;
  }

  mark(name: string, isOn: boolean): void {
    this.element.classList.toggle(name, isOn);
  }
}

export class Tile {
  readonly element: HTMLElement;
  private readonly moment = h("span", { class: "moment" });

  constructor(name: string, label: string, figures: Figure[], below: HTMLElement) {
    this.element = h(
      "section",
      { class: `tile ${name}`, "aria-label": label },
      h("h3", {}, label, this.moment),
      h("p", { class: "figures" }, ...figures.map((figure) => figure.element)),
      below,
    );
  }

  /** Of which moment the numbers are, when it is not now. */
  at(text: string): void {
    say(this.moment, text, text);
  }
}

// The flame graph: each box as wide as its time, what it called below it; a click on a box makes it the widest.

import { h } from "../shared/dom";
import { shortName } from "./names";
import type { Theme } from "./theme";
import type { Node } from "./tree";
import { count, duration, percent } from "../shared/units";

const ROW_PX = 19;
const MIN_SHARE = 0.0015;

export class Flame {
  readonly element = h("div", { class: "flame", role: "tree", "aria-label": "flame graph" });
  private root: Node | null = null;
  private path: Node[] = [];

  constructor(private theme: Theme) {}

  use(theme: Theme): void {
    this.theme = theme;
    this.render();
  }

  show(root: Node): void {
    this.root = root;
    this.path = [root];
    this.render();
  }

  private open(path: Node[]): void {
    this.path = path;
    this.render();
    this.element.querySelector<HTMLElement>(".open")?.focus();
  }

  private render(): void {
    if (!this.root) return;
    if (!this.root.totalUs) {
      this.element.replaceChildren(h("p", {}, "Nothing was recorded here."));
      return;
    }
    const boxes: HTMLElement[] = [];
    this.path.forEach((node, level) => boxes.push(this.box(node, 0, 1, level, this.path.slice(0, level + 1))));
    const depth = this.below(this.path, 0, 1, this.path.length, boxes);
    const inner = h("div", { class: "boxes", style: `height: ${depth * ROW_PX}px` }, ...boxes);
    this.element.replaceChildren(inner);
  }

  /** Boxes of all that the last node of `path` called; returns how many rows there are. */
  private below(path: Node[], left: number, width: number, level: number, boxes: HTMLElement[]): number {
    const node = path[path.length - 1]!;
    let deepest = level;
    for (const child of node.children) {
      const share = (child.totalUs / node.totalUs) * width;
      if (share < MIN_SHARE) break;
      boxes.push(this.box(child, left, share, level, [...path, child]));
      deepest = Math.max(deepest, this.below([...path, child], left, share, level + 1, boxes));
      left += share;
    }
    return deepest;
  }

  private box(node: Node, left: number, width: number, level: number, path: Node[]): HTMLElement {
    const colour = node.family < 0 ? this.theme.background : this.theme.families[node.family]!;
    const place = `left: ${left * 100}%; width: ${width * 100}%; top: ${level * ROW_PX}px; background: ${colour}`;
    const isOpen = level === this.path.length - 1;
    return h(
      "button",
      {
        type: "button",
        role: "treeitem",
        class: isOpen ? "open" : level < this.path.length ? "above" : "",
        style: place,
        title: this.words(node),
        onclick: () => this.open(path),
      },
      shortName(node.name),
    );
  }

  private words(node: Node): string {
    const share = percent(node.totalUs / this.root!.totalUs);
    const calls = node.calls ? `\n${count(node.calls)} calls` : "";
    const where = node.detail ? `\n${node.detail}` : "";
    return `${node.name}${where}\ntotal ${duration(node.totalUs)} (${share}), self ${duration(node.selfUs)}${calls}`;
  }
}

// How large the batches of the last seconds were.

import { h } from "../shared/dom";
import { count, percent } from "../shared/units";
import { type Bin, bins } from "./batches";
import { amount, NOTHING } from "./quantities";
import type { Store } from "./store";
import { Figure, say, Tile } from "./tile";

export class Histogram {
  readonly tile: Tile;
  private readonly mean = new Figure("mean of 0 batches/s");
  private readonly bars = h("div", { class: "bars", role: "img" });
  private readonly ends = [h("span", {}, "1"), h("span", {}, "1")];

  constructor(private readonly store: Store) {
    const below = h("div", { class: "histogram" }, this.bars, h("p", { class: "ends" }, ...this.ends));
    this.tile = new Tile("batches", "Batch size", [this.mean], below);
  }

  update(): void {
    const sample = this.store.samples.last;
    const sizes = sample?.batch_sizes ?? [];
    const made = bins(sizes, Number(this.store.endpoint?.settings["max_batch_size"] ?? 1));
    const total = made.reduce((sum, bin) => sum + bin.count, 0);
    const most = Math.max(1, ...made.map((bin) => bin.count));
    this.mean.say(total ? amount(sample!.mean_batch_size) : NOTHING, `mean of ${amount((sample?.batches ?? 0) / (sample?.window_s ?? 1))} batches/s`);
    while (this.bars.children.length > made.length) this.bars.lastChild!.remove();
    while (this.bars.children.length < made.length) this.bars.append(h("span", {}, h("i", {})));
    made.forEach((bin, i) => showBin(this.bars.children[i] as HTMLElement, bin, bin.count / most, bin.count / (total || 1)));
    say(this.ends[1]!, String(made[made.length - 1]!.to));
    this.bars.setAttribute("aria-label", made.filter((bin) => bin.count).map(inWords).join("; ") || "no batches in the last seconds");
  }
}

function showBin(column: HTMLElement, bin: Bin, height: number, share: number): void {
  const title = `${inWords(bin)} (${percent(share)})`;
  if (column.title !== title) column.title = title;
  (column.firstElementChild as HTMLElement).style.height = bin.count ? `max(2px, ${(100 * height).toFixed(1)}%)` : "0";
}

function inWords(bin: Bin): string {
  return `${count(bin.count)} of ${bin.from === bin.to ? bin.from : `${bin.from} to ${bin.to}`}`;
}

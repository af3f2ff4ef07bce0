// Where the time of a request goes: one bar, and below it what its colours are.

import { h } from "../shared/dom";
import { percent } from "../shared/units";
import { millis } from "./quantities";
import { type Part, parts } from "./stages";
import { Figure, say, Tile } from "./tile";

/** A bar of stages; the same parts in the same places, however long each is. */
export class StageBar {
  readonly element: HTMLElement;
  private readonly bar = h("div", { class: "stagebar", role: "img" });
  private readonly legend = h("dl", { class: "legend" });

  constructor() {
    for (const part of parts({})) {
      this.bar.append(h("span", { class: `stage ${part.name}` }));
      const swatch = h("i", { class: `swatch stage ${part.name}` });
      this.legend.append(h("div", {}, h("dt", { title: part.meaning }, swatch, part.label), h("dd", {}), h("dd", { class: "share" })));
    }
    this.element = h("div", { class: "stages" }, this.bar, this.legend);
  }

  show(stagesMs: Record<string, number>): void {
    const all = parts(stagesMs);
    all.forEach((part, i) => {
      const segment = this.bar.children[i] as HTMLElement;
      // Far above 1 in sum, so that the bar is full while its parts grow and shrink.
      segment.style.flexGrow = String(1000 * part.share);
      segment.title = words(part);
      const [, ms, share] = this.legend.children[i]!.children as unknown as [HTMLElement, HTMLElement, HTMLElement];
      say(ms, `${millis(part.ms)} ms`);
      say(share, percent(part.share));
    });
    this.bar.setAttribute("aria-label", all.map(words).join("; "));
  }
}

function words(part: Part): string {
  return `${part.label} (${part.meaning}): ${millis(part.ms)} ms, ${percent(part.share)}`;
}

/** The mean request of the last seconds. */
export class TimeSpent {
  readonly tile: Tile;
  private readonly total = new Figure("ms in the mean request");
  private readonly bar = new StageBar();

  constructor() {
    this.tile = new Tile("spent", "Where the time goes", [this.total], this.bar.element);
  }

  update(stagesMs: Record<string, number>): void {
    const total = parts(stagesMs).reduce((sum, part) => sum + part.ms, 0);
    this.total.say(millis(total || null));
    this.bar.show(stagesMs);
  }
}

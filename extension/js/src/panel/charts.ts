// The charts over time: throughput, latency, queue. Under the pointer all three tell of the same moment.

import { count } from "../shared/units";
import { type Ink, TimeChart } from "./chart";
import type { Sample } from "./protocol";
import { ago, amount, millis } from "./quantities";
import type { Store } from "./store";
import { Figure, Tile } from "./tile";

/** How far from a change of settings the pointer still finds it. */
const MARK_REACH_S = 1.5;
const QUANTILES = ["p50", "p95", "p99"] as const;

let groups = 0;

export class Charts {
  readonly tiles: Tile[];
  private readonly charts: TimeChart[];
  private readonly throughput = new Figure("/s");
  private readonly errors = new Figure("errors/s");
  private readonly latency = QUANTILES.map((name) => new Figure(name, name));
  private readonly queue = new Figure("waiting");
  private pointed: number | null = null;
  private samples: (Sample | null)[] = [];

  constructor(
    private readonly store: Store,
    ink: () => Ink,
  ) {
    const group = `nbserve-${++groups}`;
    const chart = (series: ConstructorParameters<typeof TimeChart>[0], least: number): TimeChart =>
      new TimeChart(series, least, ink, group, (index) => this.point(index));
    this.charts = [
      chart([{ colour: "accent", fill: true }, { colour: "bad" }], 10),
      chart([{ colour: "fainter" }, { colour: "faint" }, { colour: "accent" }], 1),
      chart([{ colour: "accent", fill: true }], 10),
    ];
    const [throughput, latency, queue] = this.charts.map((each): HTMLElement => each.element);
    this.tiles = [
      new Tile("throughput", "Throughput", [this.throughput, this.errors], throughput!),
      new Tile("latency", "Latency, ms", this.latency, latency!),
      new Tile("queue", "Queue", [this.queue], queue!),
    ];
  }

  update(): void {
    const { times, samples } = this.store.samples.points();
    this.samples = samples;
    const column = (pick: (sample: Sample) => number | null | undefined): (number | null)[] =>
      samples.map((sample) => (sample && pick(sample)) ?? null);
    const marks = this.store.marks.all;
    const [throughput, latency, queue] = this.charts as [TimeChart, TimeChart, TimeChart];
    throughput.show(times, [column((s) => s.throughput), column((s) => (s.errors ? s.errors / s.window_s : null))], marks);
    latency.show(times, QUANTILES.map((name) => column((s) => s.latency_ms?.[name])), marks);
    queue.show(times, [column((s) => s.queued)], marks);
    this.tell();
  }

  redraw(): void {
    for (const chart of this.charts) chart.redraw();
  }

  destroy(): void {
    for (const chart of this.charts) chart.destroy();
  }

  private point(index: number | null): void {
    if (index === this.pointed) return;
    this.pointed = index;
    this.tell();
  }

  private tell(): void {
    const now = this.store.samples.last;
    const pointed = this.pointed === null ? null : (this.samples[this.pointed] ?? null);
    const sample = pointed ?? now;
    this.throughput.say(amount(sample?.throughput ?? 0));
    this.errors.say(amount((sample?.errors ?? 0) / (sample?.window_s ?? 1)));
    this.errors.mark("bad", !!sample?.errors);
    this.errors.hint(answers(this.store.endpoint?.requests ?? {}));
    this.latency.forEach((figure, i) => figure.say(millis(sample?.latency_ms?.[QUANTILES[i]!])));
    this.queue.say(amount(sample?.queued ?? 0));
    const mark = pointed && this.store.marks.near(pointed.time_s, MARK_REACH_S);
    const moment = pointed && now ? `${ago(now.time_s - pointed.time_s)}${mark ? ` \u00b7 ${mark.text}` : ""}` : "";
    for (const tile of this.tiles) tile.at(moment);
    this.label(now);
  }

  /** What those who cannot see the charts are told. */
  private label(now: Sample | null): void {
    const texts = [
      `Throughput over the last 2 minutes, now ${amount(now?.throughput ?? 0)} per second`,
      `Latency over the last 2 minutes, now p99 ${millis(now?.latency_ms?.p99)} ms`,
      `Queue over the last 2 minutes, now ${now?.queued ?? 0} waiting`,
    ];
    this.charts.forEach((chart, i) => chart.element.setAttribute("aria-label", texts[i]!));
  }
}

/** All answers by their status, since the endpoint is served. */
function answers(byStatus: Record<string, number>): string {
  const all = Object.entries(byStatus).filter(([, times]) => times > 0);
  return all.length ? `answers so far: ${all.map(([status, times]) => `${count(times)} of ${status}`).join(", ")}` : "no answers yet";
}

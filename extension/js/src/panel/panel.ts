// The whole panel: puts its parts together and keeps them up to date.

import { h } from "../shared/dom";
import { followDark } from "../shared/theme";
import uplotCss from "uplot/dist/uPlot.min.css";
import { Ask } from "./ask";
import type { Carrier } from "./carrier";
import type { Ink } from "./chart";
import { Charts } from "./charts";
import { Controls } from "./controls";
import { DebugDrawer } from "./drawers/debug";
import { Drawers } from "./drawers/drawer";
import { ExportDrawer } from "./drawers/exporting";
import { LoadDrawer } from "./drawers/load";
import { LogsDrawer } from "./drawers/logs";
import { ProfileDrawer } from "./drawers/profile";
import { RequestDrawer } from "./drawers/request";
import { Stopping } from "./drawers/stopping";
import { Head } from "./head";
import { Histogram } from "./histogram";
import type { EndpointStatus, Snapshot } from "./protocol";
import { TimeSpent } from "./stagebar";
import { colours } from "./stages";
import { Store } from "./store";
import css from "./style.css";
import { Tuner } from "./tuner";
import { Workers } from "./workers";

export interface Shown {
  name: string;
  snapshot: Snapshot;
  /** The `%%serve` line as typed, without `%%serve`. */
  line: string;
}

export class Panel {
  readonly element: HTMLElement;
  private readonly store = new Store(
    (settings) => this.tuner.hear(settings),
    () => this.later(),
  );
  private readonly ask = new Ask(() => this.carrier);
  private readonly tuner = new Tuner(
    async (settings) => (await this.ask.json<EndpointStatus>("PATCH", "", settings)).settings,
    () => this.later(),
  );
  private readonly head: Head;
  private readonly charts: Charts;
  private readonly histogram: Histogram;
  private readonly spent = new TimeSpent();
  private readonly workers: Workers;
  private readonly controls: Controls;
  private readonly stopping: Stopping;
  private readonly drawers: Drawers;
  private readonly themed = h("style");
  private readonly unfollowTheme: () => void;
  private carrier: Carrier | null = null;
  private isDue = false;
  private isStopped = false;

  constructor(shown: Shown) {
    this.head = new Head(this.store, shown.name);
    this.charts = new Charts(this.store, () => this.ink());
    this.histogram = new Histogram(this.store);
    this.workers = new Workers(shown.name);
    this.controls = new Controls(this.tuner, shown.name, shown.line);
    const tools = { name: shown.name, store: this.store, ask: this.ask };
    const kinds = [RequestDrawer, LoadDrawer, ProfileDrawer, DebugDrawer, LogsDrawer, ExportDrawer];
    this.stopping = new Stopping(tools);
    this.drawers = new Drawers(
      kinds.map((Kind) => new Kind(tools)),
      this.stopping.element,
    );
    this.element = this.built(shown.name);
    this.unfollowTheme = followDark((isDark) => this.use(isDark));
    this.store.start(shown.snapshot);
  }

  /** Into the shadow of an element, where the page's styles do not reach. */
  mount(host: HTMLElement): void {
    // Lab would take the keys pressed in here for commands of its own.
    host.setAttribute("data-lm-suppress-shortcuts", "true");
    host.attachShadow({ mode: "open" }).append(h("style", {}, uplotCss, css), this.themed, this.element);
    this.update();
  }

  follow(carrier: Carrier): void {
    this.carrier = carrier;
    this.store.follow(carrier);
  }

  stop(): void {
    this.isStopped = true;
    this.store.stop();
    this.tuner.stop();
    this.drawers.stop();
    this.unfollowTheme();
    this.charts.destroy();
  }

  private built(name: string): HTMLElement {
    const tiles = [...this.charts.tiles, this.histogram.tile, this.spent.tile].map((tile) => tile.element);
    const body = h("div", { class: "body" }, h("div", { class: "tiles" }, ...tiles), this.controls.element);
    return h(
      "article",
      { class: "panel", "aria-label": `nbserve endpoint ${name}`, onkeydown: (event: KeyboardEvent) => this.key(event) },
      this.head.element,
      body,
      this.workers.element,
      this.drawers.element,
    );
  }

  private key(event: KeyboardEvent): void {
    if (event.key !== "z" || !(event.ctrlKey || event.metaKey) || event.shiftKey) return;
    // Text that is being typed has an undo of its own.
    if (event.target instanceof HTMLTextAreaElement || this.tuner.isHeld) return;
    event.preventDefault();
    this.tuner.undo();
  }

  private use(isDark: boolean): void {
    this.element.dataset["theme"] = isDark ? "dark" : "light";
    this.themed.textContent = colours(isDark);
    this.charts.redraw();
  }

  private ink(): Ink {
    const style = getComputedStyle(this.element);
    const of = (name: string): string => style.getPropertyValue(name).trim();
    return { line: of("--line"), muted: of("--muted"), accent: of("--accent"), faint: of("--faint"), fainter: of("--fainter"), bad: of("--bad") };
  }

  /** Up to date with the next frame of the screen. */
  private later(): void {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      if (!this.isStopped) this.update();
    });
  }

  private update(): void {
    const { endpoint, presence, samples } = this.store;
    this.element.dataset["presence"] = presence;
    this.head.update(this.carrier);
    this.charts.update();
    this.histogram.update();
    this.spent.update(samples.last?.stages_ms ?? {});
    this.workers.update(endpoint?.workers ?? []);
    this.controls.update(presence === "live");
    this.stopping.update();
    this.drawers.update();
  }
}

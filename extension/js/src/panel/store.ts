// What the panel knows: the endpoint as last told, two minutes of samples, the load, and whether anybody is there.

import type { Carrier, Connection } from "./carrier";
import { Marks } from "./marks";
import type { EndpointStatus, ExportStatus, Line, LoadStatus, Settings, Snapshot } from "./protocol";
import { Samples } from "./samples";

export type Presence = "connecting" | "live" | "lost" | "gone";

export class Store {
  presence: Presence = "connecting";
  endpoint: EndpointStatus | null = null;
  load: LoadStatus | null = null;
  exporting: ExportStatus | null = null;
  readonly samples = new Samples();
  readonly marks = new Marks();
  private stopFollowing: () => void = () => {};

  /** `onsettings` hears the settings of each line, `onchange` that something looks different. */
  constructor(
    private readonly onsettings: (settings: Settings) => void,
    private readonly onchange: () => void,
  ) {}

  start(snapshot: Snapshot): void {
    this.samples.add(...(snapshot.samples ?? []), ...(snapshot.sample ? [snapshot.sample] : []));
    this.endpoint = snapshot.endpoint ?? null;
    this.load = snapshot.load ?? null;
    this.exporting = snapshot.export ?? null;
    if (this.endpoint) this.onsettings(this.endpoint.settings);
    this.onchange();
  }

  follow(carrier: Carrier): void {
    this.stopFollowing = carrier.follow(
      (line) => this.hear(line),
      (connection) => this.connected(connection),
    );
  }

  stop(): void {
    this.stopFollowing();
  }

  private hear(line: Line): void {
    if (line.event === "begin") {
      this.samples.add(...line.samples);
      return;
    }
    if (line.event === "gone") {
      this.presence = "gone";
    } else {
      this.presence = "live";
      this.marks.see(line.endpoint, line.sample.time_s);
      [this.endpoint, this.load, this.exporting] = [line.endpoint, line.load, line.export ?? null];
      this.samples.add(line.sample);
      this.onsettings(line.endpoint.settings);
    }
    this.onchange();
  }

  private connected(connection: Connection): void {
    if (connection === "open" || this.presence === "gone" || this.presence === "lost") return;
    this.presence = "lost";
    this.onchange();
  }
}

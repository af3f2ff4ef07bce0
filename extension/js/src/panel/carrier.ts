// The two ways to talk to an endpoint have this in common.

import type { Line } from "./protocol";

export type Connection = "open" | "lost";

export interface Answer {
  status: number;
  /** What was said in JSON, else null. */
  json: unknown;
  /** What was said otherwise, else null. */
  blob: Blob | null;
}

export interface Carrier {
  /** Which way this is, for a person. */
  readonly way: string;
  /** What is the matter while nothing is heard this way. */
  readonly silence: string;
  /** Follow the endpoint's stream, through all interruptions, until what is returned is called. */
  follow(onLine: (line: Line) => void, onConnection: (connection: Connection) => void): () => void;
  /** Ask the management API; paths begin at the endpoint: "", "/load", "/logs?lines=200". */
  call(method: string, path: string, body?: object | null): Promise<Answer>;
}

/** Waits that grow, so that whoever is away is not asked too often. */
export class Backoff {
  private failures = 0;

  constructor(
    private readonly firstMs = 500,
    private readonly mostMs = 8000,
  ) {}

  next(): number {
    return Math.min(this.mostMs, this.firstMs * 2 ** this.failures++);
  }

  reset(): void {
    this.failures = 0;
  }
}

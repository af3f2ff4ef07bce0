// Through Jupyter's server, which relays to the endpoint's: never waits for a kernel.

import { type Answer, Backoff, type Carrier, type Connection } from "./carrier";
import type { Line } from "./protocol";

/** Where Jupyter's server is, and how it knows this person. */
export interface Jupyter {
  /** The address that all of Jupyter's pages are below, with a slash at its end. */
  baseUrl: string;
  wsUrl: string;
  token: string;
}

/** Jupyter's server as its page tells it; null outside of Jupyter. */
export function jupyterOf(page: Document, baseUrl?: string): Jupyter | null {
  const text = page.getElementById("jupyter-config-data")?.textContent;
  if (!text && baseUrl === undefined) return null;
  const config = JSON.parse(text || "{}") as { baseUrl?: string; wsUrl?: string; token?: string };
  const base = new URL(withSlash(baseUrl ?? config.baseUrl ?? "/"), window.location.href);
  const socket = new URL(withSlash(config.wsUrl || base.href));
  if (!config.wsUrl) socket.protocol = base.protocol === "https:" ? "wss:" : "ws:";
  return { baseUrl: base.href, wsUrl: socket.href, token: config.token ?? "" };
}

function withSlash(url: string): string {
  return url.endsWith("/") ? url : `${url}/`;
}

export class ExtensionCarrier implements Carrier {
  readonly way = "live through Jupyter\u2019s server";
  readonly silence = "reconnecting\u2026 these are the last values";
  private readonly path: string;

  constructor(
    private readonly jupyter: Jupyter,
    name: string,
    private readonly serverId: string,
  ) {
    this.path = `nbserve/api/endpoints/${encodeURIComponent(name)}`;
  }

  /** Whether the extension is there and knows this endpoint. */
  async knows(): Promise<boolean> {
    try {
      return (await this.call("GET", "")).status === 200;
    } catch {
      return false;
    }
  }

  async call(method: string, path: string, body: object | null = null): Promise<Answer> {
    const init: RequestInit = { method, headers: this.headers(), credentials: "same-origin", cache: "no-store" };
    if (body) init.body = JSON.stringify(body);
    const response = await this.fetched(this.url(this.jupyter.baseUrl, path), init);
    const isJson = response.headers.get("Content-Type")?.includes("json") ?? false;
    return { status: response.status, json: isJson ? await response.json() : null, blob: isJson ? null : await response.blob() };
  }

  follow(onLine: (line: Line) => void, onConnection: (connection: Connection) => void): () => void {
    const isGone = async (): Promise<boolean> => (await this.call("GET", "")).status === 404;
    const following = new Following(() => new WebSocket(this.socketUrl()), isGone, onLine, onConnection);
    following.open();
    return () => following.stop();
  }

  private async fetched(url: string, init: RequestInit): Promise<Response> {
    try {
      return await fetch(url, init);
    } catch {
      throw new Error("Jupyter\u2019s server cannot be reached");
    }
  }

  private headers(): Record<string, string> {
    const xsrf = document.cookie.match(/(?:^|;\s*)_xsrf=([^;]*)/)?.[1];
    const { token } = this.jupyter;
    return {
      "Content-Type": "application/json",
      ...(xsrf ? { "X-XSRFToken": xsrf } : {}),
      ...(token ? { Authorization: `token ${token}` } : {}),
    };
  }

  private socketUrl(): string {
    const { wsUrl, token } = this.jupyter;
    return this.url(wsUrl, "/stream") + (token ? `&token=${encodeURIComponent(token)}` : "");
  }

  private url(base: string, path: string): string {
    return `${base}${this.path}${path}${path.includes("?") ? "&" : "?"}server=${encodeURIComponent(this.serverId)}`;
  }
}

/** A WebSocket that comes back. */
class Following {
  private readonly backoff = new Backoff();
  private socket: WebSocket | null = null;
  private timer = 0;
  private isStopped = false;

  constructor(
    private readonly connect: () => WebSocket,
    private readonly isGone: () => Promise<boolean>,
    private readonly onLine: (line: Line) => void,
    private readonly onConnection: (connection: Connection) => void,
  ) {}

  open(): void {
    this.socket = this.connect();
    this.socket.onmessage = (event) => this.hear(JSON.parse(event.data as string) as Line);
    this.socket.onclose = () => this.lost();
  }

  stop(): void {
    this.isStopped = true;
    clearTimeout(this.timer);
    this.socket?.close();
  }

  private hear(line: Line): void {
    if (this.isStopped) return;
    this.backoff.reset();
    this.onConnection("open");
    this.onLine(line);
  }

  private lost(): void {
    if (this.isStopped) return;
    this.onConnection("lost");
    this.timer = setTimeout(() => this.open(), this.backoff.next());
    void this.askWhy();
  }

  /** A socket that was refused does not say why. */
  private async askWhy(): Promise<void> {
    const isGone = await this.isGone().catch(() => false);
    if (isGone && !this.isStopped && this.socket?.readyState !== WebSocket.OPEN) this.onLine({ event: "gone" });
  }
}

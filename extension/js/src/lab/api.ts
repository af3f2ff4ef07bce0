// The REST API of nbserve's Jupyter extension, asked as Lab asks its own: with its base URL, token and XSRF cookie.

import { URLExt } from "@jupyterlab/coreutils";
import { ServerConnection } from "@jupyterlab/services";

/** The objects of `nbserve ps --json`, as far as they are shown here. */
export interface Server {
  server_id: string;
  pid: number;
  owner_pid: number | null;
  detached: boolean;
  notebook: string | null;
  endpoints: Endpoint[];
}

export interface Endpoint {
  name: string;
  version: string | null;
  state: string;
  queued: number;
  workers: { role: string; state: string }[];
  requests: Record<string, number>;
}

export interface LogLine {
  number: number;
  time_s: number;
  level: string;
  worker: number | null;
  text: string;
}

/** Which endpoint: names are unique on a server only. */
export interface Place {
  name: string;
  serverId: string;
}

export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

const NOT_INSTALLED =
  "Jupyter's server does not know nbserve's extension. Install nbserve-torch where Jupyter runs, and restart Jupyter.";
const NO_ANSWER = "Jupyter's server does not answer. Is it still running?";
const NOT_LOGGED_IN = "Jupyter does not know you any more. Reload the page to log in.";

export class Api {
  private readonly settings = ServerConnection.makeSettings();

  get baseUrl(): string {
    return this.settings.baseUrl;
  }

  async servers(): Promise<Server[]> {
    try {
      return (await this.call("GET", "endpoints")) as Server[];
    } catch (error) {
      throw error instanceof ApiError && error.status === 404 ? new ApiError(NOT_INSTALLED, 404) : error;
    }
  }

  /** The newest `lines` of an endpoint whose number is above `after`. */
  async logs(place: Place, lines: number, after: number): Promise<LogLine[]> {
    return (await this.call("GET", `${path(place)}/logs`, { ...query(place), lines: `${lines}`, after: `${after}` })) as LogLine[];
  }

  async stopEndpoint(place: Place): Promise<void> {
    await this.call("DELETE", path(place), query(place));
  }

  async stopServer(serverId: string): Promise<void> {
    await this.call("DELETE", `servers/${encodeURIComponent(serverId)}`);
  }

  private async call(method: string, below: string, parameters: Record<string, string> = {}): Promise<unknown> {
    const address = URLExt.join(this.settings.baseUrl, "nbserve/api", below) + URLExt.objectToQueryString(parameters);
    const response = await this.send(address, method);
    const body = parsed(await response.text());
    if (!response.ok) throw new ApiError(reason(response, body), response.status);
    return body;
  }

  private async send(address: string, method: string): Promise<Response> {
    try {
      return await ServerConnection.makeRequest(address, { method, cache: "no-store" }, this.settings);
    } catch (error) {
      throw new Error(error instanceof ServerConnection.NetworkError ? NO_ANSWER : String(error));
    }
  }
}

function path(place: Place): string {
  return `endpoints/${encodeURIComponent(place.name)}`;
}

function query(place: Place): Record<string, string> {
  return { server: place.serverId };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function reason(response: Response, body: unknown): string {
  if (response.status === 401 || response.status === 403) return NOT_LOGGED_IN;
  const message = (body as { message?: unknown } | null)?.message;
  return typeof message === "string" && message ? message : `Jupyter's server answered ${response.status} ${response.statusText}.`;
}

// What the side panel says of servers and endpoints. Pure.

import type { Endpoint, Server } from "./api";

export type Tone = "good" | "waiting" | "broken";

const TONES: Record<string, Tone> = { READY: "good", STARTING: "waiting", HELD: "waiting", STOPPING: "waiting" };

export function tone(state: string): Tone {
  return TONES[state] ?? "broken";
}

/** `ready, 2 of 2 workers`. */
export function condition(endpoint: Endpoint): string {
  const workers = endpoint.workers.filter((worker) => worker.role === "worker");
  const serving = workers.filter((worker) => worker.state === "READY" || worker.state === "BUSY").length;
  const held = workers.filter((worker) => worker.state === "HELD").length;
  const parts = [endpoint.state.toLowerCase(), unbroken(`${serving} of ${counted(workers.length, "worker")}`)];
  if (held) parts.push(unbroken(`${held} held`));
  return parts.join(", ");
}

/** `1,432 answers, 3 errors, 0 queued`. */
export function traffic(endpoint: Endpoint): string {
  const counts = Object.entries(endpoint.requests);
  const errors = sum(counts.filter(([status]) => Number(status) >= 400));
  const parts = [counted(sum(counts), "answer")];
  if (errors) parts.push(counted(errors, "error"));
  return [...parts, unbroken(`${endpoint.queued.toLocaleString("en")} queued`)].join(", ");
}

/** The notebook that a server was started from, or else what is known of it. */
export function title(server: Server): string {
  if (server.notebook) return server.notebook.split("/").pop()!;
  return server.detached ? "detached server" : `kernel ${server.owner_pid}`;
}

/** How long a server goes on; `notebooks` are the paths of those whose kernels run in this Jupyter. */
export function lifetime(server: Server, notebooks: string[]): string {
  if (!server.detached) return "ends with its kernel";
  return isOrphan(server, notebooks) ? "detached, its kernel is gone" : "detached";
}

/** Explains `lifetime` to who points at it. */
export function lifetimeHelp(server: Server, notebooks: string[]): string {
  const from = server.notebook ? `Started from ${server.notebook}. ` : "";
  if (!server.detached) return `${from}It ends with the kernel that started it, process ${server.owner_pid}.`;
  const alone = isOrphan(server, notebooks) ? "No kernel runs for that notebook in this Jupyter. " : "";
  return `${from}${alone}It goes on until somebody stops it.`;
}

/** `2 endpoints (digits, iris)`. */
export function endpointsOf(server: Server): string {
  const names = server.endpoints.map((endpoint) => endpoint.name);
  return names.length ? `${counted(names.length, "endpoint")} (${names.join(", ")})` : "no endpoints";
}

export function counted(count: number, noun: string): string {
  return unbroken(`${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`);
}

/** A narrow panel breaks its lines at commas only. */
function unbroken(text: string): string {
  return text.replaceAll(" ", "\u00a0");
}

function isOrphan(server: Server, notebooks: string[]): boolean {
  const { notebook } = server;
  return server.detached && notebook !== null && !notebooks.some((path) => `/${notebook}`.endsWith(`/${path}`));
}

function sum(counts: [string, number][]): number {
  return counts.reduce((total, [, count]) => total + count, 0);
}

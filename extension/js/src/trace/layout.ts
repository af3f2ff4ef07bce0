// Where each row lies: requests above, then for each worker its threads, its streams and its memory. Pure.

import type { Header } from "./model";

/** Rows that belong together, under one title. `first` counts into the index of rows, or into the memory lines. */
export interface Group {
  kind: "requests" | "worker" | "track" | "memory";
  key: string;
  title: string;
  note: string;
  y: number;
  height: number;
  rows: number;
  rowHeight: number;
  first: number;
  isFolded: boolean;
}

export interface Layout {
  groups: Group[];
  height: number;
}

/** What is known of the tracks before any row is laid out. */
export interface TrackRows {
  base: Int32Array;
  depths: Int32Array;
  rows: number;
}

const ROW = 16;
const FOLDED_ROW = 3;
const HEADING = 20;
const MEMORY = 44;
const GAP = 6;

/** How deep each track nests, and which row of the index its outermost events are in. */
export function trackRows(tracks: number, track: Int16Array, depth: Int16Array): TrackRows {
  const depths = new Int32Array(tracks);
  for (let i = 0; i < track.length; i++) {
    const at = track[i]!;
    if (depth[i]! >= depths[at]!) depths[at] = depth[i]! + 1;
  }
  const base = new Int32Array(tracks);
  for (let i = 1; i < tracks; i++) base[i] = base[i - 1]! + depths[i - 1]!;
  return { base, depths, rows: depths.reduce((sum, each) => sum + each, 0) };
}

export function layoutOf(header: Header, lanes: number, rows: TrackRows, folded: ReadonlySet<string>): Layout {
  const groups: Group[] = [];
  let y = 0;
  const add = (group: Omit<Group, "y" | "height" | "isFolded">, height?: number): void => {
    const isFolded = folded.has(group.key);
    const rowHeight = isFolded ? Math.min(group.rowHeight, FOLDED_ROW) : group.rowHeight;
    const tall = height ?? Math.max(ROW, group.rows * rowHeight);
    groups.push({ ...group, rowHeight, isFolded, y, height: tall });
    y += tall + (group.kind === "worker" ? 2 : GAP);
  };
  if (lanes) add(requestGroup(header, lanes));
  for (const worker of workersOf(header)) addWorker(header, worker, rows, add);
  return { groups, height: y };
}

function requestGroup(header: Header, lanes: number): Omit<Group, "y" | "height" | "isFolded"> {
  const rowHeight = lanes <= 10 ? ROW : lanes <= 32 ? 9 : 5;
  const note = header.spans.length.toLocaleString("en-US");
  return { kind: "requests", key: "requests", title: "requests", note, rows: lanes, rowHeight, first: 0 };
}

function addWorker(
  header: Header,
  worker: number,
  rows: TrackRows,
  add: (group: Omit<Group, "y" | "height" | "isFolded">, height?: number) => void,
): void {
  const tracks = header.tracks.map((track, i) => ({ ...track, i })).filter((track) => track.worker === worker);
  const pid = tracks[0] ? `process ${tracks[0].pid}` : "";
  const heading = { kind: "worker" as const, key: `worker ${worker}`, title: `worker ${worker}`, note: pid };
  add({ ...heading, rows: 0, rowHeight: ROW, first: 0 }, HEADING);
  for (const kind of ["cpu", "gpu"]) {
    for (const track of tracks.filter((one) => one.kind === kind && rows.depths[one.i])) {
      const title = track.name || (kind === "gpu" ? `stream ${track.number}` : `thread ${track.number}`);
      const where = { first: rows.base[track.i]!, rows: rows.depths[track.i]!, rowHeight: ROW };
      add({ kind: "track", key: `track ${track.i}`, title, note: kind === "gpu" ? "GPU" : "CPU", ...where });
    }
  }
  header.memory.forEach((use, i) => {
    if (use.worker !== worker || use.bytes.length < 2) return;
    const title = { title: "memory", note: use.device };
    add({ kind: "memory", key: `memory ${i}`, ...title, rows: 1, rowHeight: MEMORY, first: i }, MEMORY);
  });
}

function workersOf(header: Header): number[] {
  const workers = [...header.tracks.map((track) => track.worker), ...header.memory.map((use) => use.worker)];
  return [...new Set(workers)].sort((a, b) => a - b);
}

/** The group at a height, and the row of it (0: the outermost); null between groups. */
export function groupAt(layout: Layout, y: number): { group: Group; row: number } | null {
  for (const group of layout.groups) {
    if (y < group.y || y >= group.y + group.height) continue;
    return { group, row: Math.min(group.rows - 1, Math.floor((y - group.y) / group.rowHeight)) };
  }
  return null;
}

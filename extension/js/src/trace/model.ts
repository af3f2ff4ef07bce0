// What a packed trace holds; nbserve/trace/pack.py writes it and describes each field.

export interface Track {
  kind: "cpu" | "gpu";
  worker: number;
  pid: number;
  number: number;
  name: string;
}

export type Stage = [name: string, durationUs: number];

export interface Batch {
  batch_id: number;
  worker: number;
  start_us: number;
  stages: [name: string, startUs: number, durationUs: number][];
  rows: number;
  recorded: boolean;
}

export interface Span {
  request_id: string;
  batch: number;
  worker: number;
  start_us: number;
  stages: Stage[];
  total_us: number;
}

export interface OpRow {
  name: string;
  device: "cpu" | "gpu";
  calls: number;
  self_us: number;
  total_us: number;
  share: number;
  shapes: string;
}

export interface Finding {
  name: string;
  figure: string;
  value: number;
  threshold: number;
  why: string;
  fix: string;
  expected_gain: number;
  settings: Record<string, unknown>;
}

export interface StackNode {
  name: string;
  file: string;
  line: number;
  total_ms: number;
  self_ms: number;
  children: StackNode[];
}

export interface MemoryRow {
  place: string;
  bytes: number;
  peak_bytes: number;
  count: number;
}

export interface MemoryUse {
  worker: number;
  device: string;
  time_us: number[];
  bytes: number[];
  rows: MemoryRow[];
}

export interface Header {
  version: number;
  endpoint: string;
  start_ns: string;
  duration_us: number;
  tracks: Track[];
  names: string[];
  details: string[];
  categories: string[];
  batches: Batch[];
  spans: Span[];
  ops: OpRow[];
  findings: Finding[];
  stacks: Record<string, StackNode>;
  memory: MemoryUse[];
  notes: string[];
  settings: Record<string, unknown>;
  arrays: Record<string, [type: string, count: number]>;
}

/** Columns of one length, ordered by track and then by start, outer events first. */
export interface Events {
  count: number;
  name: Int32Array;
  detail: Int32Array;
  track: Int16Array;
  start: Float64Array;
  duration: Float32Array;
  self: Float32Array;
  depth: Int16Array;
  batch: Int32Array;
  correlation: Int32Array;
  category: Int8Array;
}

export interface Trace {
  header: Header;
  events: Events;
}

/** A stretch of time in microseconds since the recording's start. */
export interface Range {
  start: number;
  end: number;
}

// What travels between the panel and the server, as JSON: the lines of an endpoint's stream and the answers to calls.

export interface Quantiles {
  p50: number;
  p95: number;
  p99: number;
}

/** How an endpoint did over the last `window_s`. `latency_ms` is null when nothing was answered. */
export interface Sample {
  time_s: number;
  window_s: number;
  requests: number;
  throughput: number;
  errors: number;
  latency_ms: Quantiles | null;
  queued: number;
  batches: number;
  mean_batch_size: number;
  batch_sizes: [size: number, count: number][];
  stages_ms: Record<string, number>;
}

export interface Held {
  worker: number;
  reason: string;
  file: string;
  line: number;
  function: string;
  request_ids: string[];
  debugger: string | null;
  goes_on_in_s: number | null;
}

export interface WorkerStatus {
  index: number;
  pid: number | null;
  state: string;
  device: string;
  threads: number;
  rss_bytes: number;
  cpu_percent: number;
  batches: number;
  restarts: number;
  last_error: string | null;
  last_error_place: string | null;
  role: string;
  held: Held | null;
  debugger: string | null;
  profiling: boolean;
}

export type Setting = string | number | boolean;
export type Settings = Record<string, Setting>;

export interface EndpointStatus {
  name: string;
  version: string | null;
  state: string;
  url: string | null;
  bundle: string | null;
  settings: Settings;
  queued: number;
  workers: WorkerStatus[];
  requests: Record<string, number>;
  server_id: string;
}

export interface Outcome {
  requests: number;
  errors: Record<string, number>;
  seconds: number;
  rate: number;
  latency_ms: Record<string, number>;
}

export interface LoadStatus {
  clients: number | null;
  rate: number | null;
  seconds: number;
  began_s: number;
  is_running: boolean;
  requests: number;
  errors: Record<string, number>;
  outcome: Outcome | null;
}

export interface Exported {
  path: string;
  files: number;
  size_bytes: number;
  proven: number;
  /** What was proven, in words. */
  proof: string;
  image: string | null;
  image_bytes: number | null;
  notes: string[];
  commands: string[];
}

/** An export: where to and how, what it said last, and in the end a result or an error. */
export interface ExportStatus {
  directory: string;
  build: string | null;
  gpu: boolean | null;
  began_s: number;
  is_running: boolean;
  lines: string[];
  result: Exported | null;
  error: string | null;
}

export type Line =
  | { event: "begin"; samples: Sample[] }
  | { event: "stats"; endpoint: EndpointStatus; sample: Sample; load: LoadStatus | null; export?: ExportStatus | null }
  | { event: "gone" };

/** What is known when the panel is shown, before anything was heard. */
export interface Snapshot {
  endpoint?: EndpointStatus | null;
  sample?: Sample | null;
  load?: LoadStatus | null;
  export?: ExportStatus | null;
  samples?: Sample[];
}

/** One request's stages, as its span has them. */
export type Span = Record<string, number | string>;

export interface Prediction {
  status: number;
  content_type: string;
  body_base64: string;
  ms: number;
  span: Span | null;
}

export interface Recorded {
  content_type: string;
  body_base64: string;
  status: number;
  answer_content_type: string;
  answer_base64: string;
}

export interface LogLine {
  number: number;
  time_s: number;
  level: string;
  endpoint: string | null;
  worker: number | null;
  text: string;
}

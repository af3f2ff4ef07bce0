// The trace as Chrome trace JSON, which Perfetto opens; written in pieces, because one text would be too long.

import type { Span, Trace } from "./model";
import { stageLabel } from "./stages";

const PIECE = 20_000;
/** The process number of the requests' rows in the file, far from those of real processes; as in nbserve/trace/chrome.py. */
const REQUESTS_PID = 2_000_000_000;

export function chromeTrace(trace: Trace, lanes: number[][]): Blob {
  const pieces: string[] = ['{"displayTimeUnit":"ms","traceEvents":[\n'];
  let lines: string[] = [];
  const flush = (): void => {
    if (lines.length) pieces.push((pieces.length > 1 ? ",\n" : "") + lines.join(",\n"));
    lines = [];
  };
  for (const line of allLines(trace, lanes)) {
    lines.push(JSON.stringify(line));
    if (lines.length >= PIECE) flush();
  }
  flush();
  pieces.push("\n]}\n");
  return new Blob(pieces, { type: "application/json" });
}

function* allLines(trace: Trace, lanes: number[][]): Generator<object> {
  yield* names(trace, lanes.length);
  for (const [lane, spans] of lanes.entries()) {
    for (const i of spans) yield* requestLines(trace.header.spans[i]!, lane);
  }
  for (let i = 0; i < trace.events.count; i++) yield* eventLines(trace, i);
  for (const use of trace.header.memory) {
    const pid = trace.header.tracks.find((track) => track.worker === use.worker)?.pid ?? use.worker;
    for (const [i, ts] of use.time_us.entries()) {
      yield { ph: "C", name: `memory ${use.device}`, pid, ts, args: { bytes: use.bytes[i] } };
    }
  }
}

function* names(trace: Trace, lanes: number): Generator<object> {
  yield meta("process_name", REQUESTS_PID, 0, "requests");
  yield { ph: "M", name: "process_sort_index", ts: 0, pid: REQUESTS_PID, tid: 0, args: { sort_index: -2 } };
  for (let lane = 0; lane < lanes; lane++) yield meta("thread_name", REQUESTS_PID, lane + 1, `request ${lane + 1}`);
  for (const [i, track] of trace.header.tracks.entries()) {
    yield meta("process_name", track.pid, 0, `worker ${track.worker}`);
    yield meta("thread_name", track.pid, i + 1, `${track.kind} ${track.name || track.number}`);
  }
}

function meta(name: string, pid: number, tid: number, value: string): object {
  return { ph: "M", name, pid, tid, args: { name: value } };
}

function* requestLines(span: Span, lane: number): Generator<object> {
  const at = { ph: "X", pid: REQUESTS_PID, tid: lane + 1 };
  const name = `request ${span.request_id}`;
  yield { ...at, name, cat: "request", ts: span.start_us, dur: span.total_us, args: { batch: span.batch, worker: span.worker } };
  let ts = span.start_us;
  for (const [stage, dur] of span.stages) {
    if (dur > 0) yield { ...at, name: stageLabel(stage), cat: "stage", ts, dur };
    ts += dur;
  }
}

function* eventLines(trace: Trace, i: number): Generator<object> {
  const { events, header } = trace;
  const track = header.tracks[events.track[i]!]!;
  const args: Record<string, unknown> = {};
  if (events.detail[i]! >= 0) args["inputs"] = header.details[events.detail[i]!];
  const batch = header.batches[events.batch[i]!];
  if (batch) args["batch"] = batch.batch_id;
  const at = { pid: track.pid, tid: events.track[i]! + 1, ts: events.start[i]! };
  const cat = header.categories[events.category[i]!];
  yield { ph: "X", name: header.names[events.name[i]!], cat, ...at, dur: events.duration[i]!, args };
  const id = events.correlation[i]!;
  // An arrow from a launch to its kernel.
  if (id && track.kind === "cpu") yield { ph: "s", id, name: "launch", cat: "launch", ...at };
  if (id && track.kind === "gpu") yield { ph: "f", bp: "e", id, name: "launch", cat: "launch", ...at };
}

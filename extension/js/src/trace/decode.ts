// From the base64 text in the page to typed arrays.

import type { Events, Header, Trace } from "./model";

type Column = Float64Array | Float32Array | Int32Array | Int16Array | Int8Array;

const TYPES: Record<string, new (buffer: ArrayBuffer, offset: number, length: number) => Column> = {
  f8: Float64Array,
  f4: Float32Array,
  i4: Int32Array,
  i2: Int16Array,
  i1: Int8Array,
};

/** The trace packed by nbserve/trace/pack.py. */
export async function decode(base64: string): Promise<Trace> {
  return unpack(await gunzip(bytesOf(base64.trim())));
}

function bytesOf(base64: string): Uint8Array<ArrayBuffer> {
  const binary = atob(base64);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

async function gunzip(bytes: Uint8Array<ArrayBuffer>): Promise<ArrayBuffer> {
  if (typeof DecompressionStream === "undefined") {
    throw new Error("this browser is too old for the timeline: it has no DecompressionStream (any browser since 2023 has)");
  }
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

function unpack(buffer: ArrayBuffer): Trace {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length))) as Header;
  if (header.version !== 1) throw new Error(`the trace has format ${header.version}; this viewer reads format 1`);
  const columns = readColumns(buffer, padded(4 + length), header.arrays);
  return { header, events: eventsOf(columns) };
}

function readColumns(buffer: ArrayBuffer, at: number, arrays: Header["arrays"]): Map<string, Column> {
  const columns = new Map<string, Column>();
  for (const [name, [type, count]] of Object.entries(arrays)) {
    const kind = TYPES[type];
    if (!kind) throw new Error(`the trace's column ${name} has the unknown type ${type}`);
    const column = new kind(buffer, at, count);
    columns.set(name, column);
    at = padded(at + column.byteLength);
  }
  return columns;
}

function eventsOf(columns: Map<string, Column>): Events {
  const column = <T extends Column>(name: string): T => {
    const found = columns.get(name);
    if (!found) throw new Error(`the trace has no column ${name}`);
    return found as T;
  };
  const name = column<Int32Array>("name");
  return {
    count: name.length,
    name,
    detail: column("detail"),
    track: column("track"),
    start: column("start_us"),
    duration: column("duration_us"),
    self: column("self_us"),
    depth: column("depth"),
    batch: column("batch"),
    correlation: column("correlation"),
    category: column("category"),
  };
}

function padded(length: number): number {
  return (length + 7) & ~7;
}

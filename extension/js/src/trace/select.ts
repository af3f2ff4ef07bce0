// What a selection means: the batch of a request, the events of a batch, the sums of a range.

import type { OpRow, Range, Trace } from "./model";
import { overlapping } from "./rows";
import type { Scene, Selection } from "./scene";

const OP_CATEGORIES = ["op", "annotation", "runtime", "overhead"];
const KERNEL_CATEGORIES = ["kernel", "memcpy", "memset"];

/** Makes `selection` the scene's, and its batch stand out. */
export function select(scene: Scene, selection: Selection): void {
  scene.selection = selection;
  const batch = batchOf(scene, selection);
  const isEverything = batch < 0;
  scene.lit = isEverything ? null : scene.index.only((event) => scene.trace.events.batch[event] === batch);
  scene.litRequests = isEverything ? null : requestsOf(scene.trace, batch, selection);
}

/** The time that a selection covers. */
export function rangeOf(scene: Scene, selection: Selection): Range | null {
  if (selection.kind === "range") return selection.range;
  if (selection.kind === "event") return scene.rangeOf(selection.event);
  if (selection.kind === "none") return null;
  const span = scene.trace.header.spans[selection.request]!;
  return { start: span.start_us, end: span.start_us + span.total_us };
}

/** The batch of a selected request; -1 when nothing is to stand out. */
function batchOf(scene: Scene, selection: Selection): number {
  return selection.kind === "request" ? scene.trace.header.spans[selection.request]!.batch : -1;
}

function requestsOf(trace: Trace, batch: number, selection: Selection): Set<number> {
  const requests = new Set(selection.kind === "request" ? [selection.request] : []);
  trace.header.spans.forEach((span, i) => span.batch === batch && requests.add(i));
  return requests;
}

interface Sum extends OpRow {
  costliest: number;
}

/** The table of operators of a range; an event that lies in it in part counts in part. */
export function sumRange(scene: Scene, range: Range, index = scene.index): OpRow[] {
  const sums = new Map<number, Sum>();
  const [isOp, isKernel] = [OP_CATEGORIES, KERNEL_CATEGORIES].map((names) =>
    scene.trace.header.categories.map((category) => names.includes(category)),
  ) as [boolean[], boolean[]];
  for (const event of overlapping(index, range)) {
    const category = scene.trace.events.category[event]!;
    if (isOp[category] || isKernel[category]) add(sums, scene, event, range, isKernel[category]!);
  }
  return shared(joined([...sums.values()]));
}

function add(sums: Map<number, Sum>, scene: Scene, event: number, range: Range, isKernel: boolean): void {
  const { events } = scene.trace;
  const key = events.name[event]! * 2 + Number(isKernel);
  let sum = sums.get(key);
  if (!sum) {
    const device = isKernel ? "gpu" : "cpu";
    sum = { name: rowName(scene.nameOf(event)), device, calls: 0, self_us: 0, total_us: 0, share: 0, shapes: "", costliest: 0 };
    sums.set(key, sum);
  }
  const { start, end } = scene.rangeOf(event);
  const part = end > start ? (Math.min(end, range.end) - Math.max(start, range.start)) / (end - start) : 1;
  sum.calls += 1;
  sum.self_us += events.self[event]! * part;
  sum.total_us += events.duration[event]! * part;
  if (events.self[event]! >= sum.costliest) {
    sum.costliest = events.self[event]!;
    sum.shapes = scene.detailOf(event);
  }
}

/** As in the table of the whole recording, all batches are one row. */
function rowName(name: string): string {
  return name.startsWith("nbserve.batch ") ? "nbserve.batch" : name;
}

function joined(sums: Sum[]): Sum[] {
  const rows = new Map<string, Sum>();
  for (const sum of sums) {
    const row = rows.get(`${sum.device} ${sum.name}`);
    if (!row) {
      rows.set(`${sum.device} ${sum.name}`, sum);
      continue;
    }
    row.calls += sum.calls;
    row.self_us += sum.self_us;
    row.total_us += sum.total_us;
  }
  return [...rows.values()];
}

function shared(rows: OpRow[]): OpRow[] {
  const whole = { cpu: 0, gpu: 0 };
  for (const row of rows) whole[row.device] += row.self_us;
  for (const row of rows) row.share = whole[row.device] ? row.self_us / whole[row.device] : 0;
  return rows.sort((a, b) => b.self_us - a.self_us);
}

// Trees for the flame graph: operators by who called them, and sampled Python stacks. Pure.

import type { Range, StackNode, Trace } from "./model";

export interface Node {
  name: string;
  detail: string;
  totalUs: number;
  selfUs: number;
  calls: number;
  family: number;
  children: Node[];
}

type Growing = Node & { byName: Map<string, Growing> };

/** Operators by who called them, of the events that are wanted; what lies in `range` in part counts in part. */
export function operatorTree(
  trace: Trace,
  family: (event: number) => number,
  isWanted: (event: number) => boolean,
  range: Range | null,
): Node {
  const { events, header } = trace;
  const root = leaf("all", "", -1);
  const tops = header.tracks.map((track) => grown(root, `worker ${track.worker} \u00b7 ${track.name || track.number}`, -1));
  let path: Growing[] = [];
  let track = -1;
  for (let i = 0; i < events.count; i++) {
    if (!isWanted(i)) continue;
    if (events.track[i] !== track) [track, path] = [events.track[i]!, []];
    const depth = events.depth[i]!;
    path.length = Math.min(path.length, depth);
    const parent = path[path.length - 1] ?? tops[track]!;
    const node = grown(parent, title(header.names[events.name[i]!]!), family(i));
    // A wanted event may have callers that are not: the path has no gaps all the same.
    while (path.length < depth) path.push(parent);
    path.push(node);
    const part = inside(events.start[i]!, events.duration[i]!, range);
    node.calls += 1;
    node.selfUs += events.self[i]! * part;
  }
  return summed(root);
}

/** The sampled stacks of all workers. */
export function stackTree(stacks: Record<string, StackNode>, family: number): Node {
  const root = leaf("all", "", -1);
  root.children = Object.entries(stacks).map(([worker, node]) => ({
    ...converted(node, family),
    name: `worker ${worker}`,
    detail: "",
    family: -1,
  }));
  root.totalUs = root.children.reduce((sum, node) => sum + node.totalUs, 0);
  return root;
}

function converted(node: StackNode, family: number): Node {
  return {
    name: node.name,
    detail: node.file ? `${node.file}:${node.line}` : "",
    totalUs: node.total_ms * 1e3,
    selfUs: node.self_ms * 1e3,
    calls: 0,
    family,
    children: node.children.map((child) => converted(child, family)),
  };
}

function title(name: string): string {
  return name.startsWith("nbserve.batch ") ? "nbserve.batch" : name;
}

function inside(start: number, duration: number, range: Range | null): number {
  if (!range || !duration) return 1;
  return Math.max(0, Math.min(start + duration, range.end) - Math.max(start, range.start)) / duration;
}

function leaf(name: string, detail: string, family: number): Growing {
  return { name, detail, family, totalUs: 0, selfUs: 0, calls: 0, children: [], byName: new Map() };
}

function grown(parent: Growing, name: string, family: number): Growing {
  let child = parent.byName.get(name);
  if (!child) {
    child = leaf(name, "", family);
    parent.byName.set(name, child);
    parent.children.push(child);
  }
  return child;
}

/** Totals from self times upwards; what took no time is gone, and the costliest comes first. */
function summed(node: Node): Node {
  node.children = node.children.map(summed).filter((child) => child.totalUs > 0);
  node.children.sort((a, b) => b.totalUs - a.totalUs);
  node.totalUs = node.selfUs + node.children.reduce((sum, child) => sum + child.totalUs, 0);
  return node;
}

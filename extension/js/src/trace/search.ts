// Finding events by name, shape or request.

import { lowerBound } from "./rows";
import type { Scene, Search } from "./scene";

/** All events whose name or arguments contain `text`, and the requests of that id; null for no text. */
export function find(scene: Scene, text: string): Search | null {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return null;
  const { header, events } = scene.trace;
  const names = matching(header.names, wanted);
  const details = matching(header.details, wanted);
  const index = scene.index.only((event) => !!names[events.name[event]!] || !!details[events.detail[event]!]);
  const requests = header.spans.flatMap((span, i) => (span.request_id.toLowerCase().includes(wanted) ? [i] : []));
  const totalUs = outermostUs(scene, index.event) + requests.reduce((sum, i) => sum + header.spans[i]!.total_us, 0);
  const requestSet = new Set(requests);
  return { text: wanted, index, requests, requestSet, count: index.event.length + requests.length, totalUs, current: null };
}

function matching(texts: string[], wanted: string): Uint8Array {
  return Uint8Array.from(texts, (text) => Number(text.toLowerCase().includes(wanted)));
}

/** How long the matches took; one inside another of them counts once. */
function outermostUs(scene: Scene, matches: Int32Array): number {
  const { events } = scene.trace;
  let [total, track, until] = [0, -1, -Infinity];
  // Events are ordered by track and then by start, outer ones first.
  for (const event of matches.slice().sort()) {
    if (events.track[event]! !== track) [track, until] = [events.track[event]!, -Infinity];
    const { start, end } = scene.rangeOf(event);
    if (start < until) continue;
    total += end - start;
    until = end;
  }
  return total;
}

/** The next match in time (`direction` 1) or the one before (-1), around at the ends; -1 if there is none. */
export function jump(search: Search, direction: 1 | -1, from: number): number {
  const at = search.current ?? { start: from, event: -1 };
  const found = nearest(search, direction, at) ?? nearest(search, direction, { start: -direction * Infinity, event: -1 });
  if (!found) return -1;
  search.current = found;
  return found.event;
}

/** Which match the current one is, counted from 1 in order of time; 0 before the first jump. */
export function ordinal(search: Search): number {
  if (!search.current) return 0;
  let before = 0;
  for (let row = 0; row < search.index.rows; row++) {
    const low = search.index.first[row]!;
    for (let i = low; i < search.index.first[row + 1]!; i++) {
      const start = search.index.start[i]!;
      if (start > search.current.start) break;
      if (comesAfter(search.current, { start, event: search.index.event[i]! }, 1)) before += 1;
    }
  }
  return before + 1;
}

type Place = { start: number; event: number };

function nearest(search: Search, direction: 1 | -1, at: Place): Place | null {
  const { index } = search;
  let best: Place | null = null;
  for (let row = 0; row < index.rows; row++) {
    const [low, high] = [index.first[row]!, index.first[row + 1]!];
    let i = lowerBound(index.start, at.start, low, high);
    if (direction < 0) i = Math.min(high - 1, i);
    for (; i >= low && i < high; i += direction) {
      const place = { start: index.start[i]!, event: index.event[i]! };
      if (!comesAfter(place, at, direction)) continue;
      if (!best || comesAfter(best, place, direction)) best = place;
      break;
    }
  }
  return best;
}

function comesAfter(one: Place, other: Place, direction: 1 | -1): boolean {
  const difference = one.start - other.start || one.event - other.event;
  return difference * direction > 0;
}

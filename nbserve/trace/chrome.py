"""Writes a timeline as a Chrome trace, which Perfetto opens: requests and batches above the workers' own events.

A worker's own events are copied from its trace (ownevents.py). Times are on CLOCK_MONOTONIC, in microseconds after
`baseTimeNanoseconds`. Pure; kernel or terminal.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import IO, Any

import orjson

from nbserve.recording import Span
from nbserve.trace import ownevents
from nbserve.trace.model import BATCH_STAGES, REQUEST_STAGES, Batch, Timeline
from nbserve.trace.ownevents import Event, Place, microseconds, named, part

REQUESTS_PID = 2_000_000_000
BATCHES_PID = 2_000_000_001
_CHUNK_EVENTS = 2_000


def write(timeline: Timeline, path: str | Path) -> None:
    """Write the timeline to `path`, compressed when that ends in .gz."""
    path = Path(path)
    with gzip.open(path, "wb", 6) if path.suffix == ".gz" else path.open("wb") as file:
        _write(timeline, file)


def _write(timeline: Timeline, file: IO[bytes] | gzip.GzipFile) -> None:
    base_ns, _ = timeline.extent_ns()
    head = {
        "schemaVersion": 1,
        "displayTimeUnit": "ms",
        "baseTimeNanoseconds": base_ns,
        "traceName": timeline.recording["endpoint"],
    }
    file.write(orjson.dumps(head)[:-1] + b',"traceEvents":[\n')
    every, separator = events(timeline, base_ns), b""
    while chunk := list(islice(every, _CHUNK_EVENTS)):
        file.write(separator + b",\n".join(map(orjson.dumps, chunk)))
        separator = b",\n"
    file.write(b"\n]}\n")


def events(timeline: Timeline, base_ns: int) -> Iterator[Event]:
    """All events of the trace: requests, batches, then the workers' own."""
    yield from _process(REQUESTS_PID, "requests", order=-2)
    yield from _requests(timeline, base_ns)
    yield from _process(BATCHES_PID, "batches", order=-1)
    yield from _batches(timeline, base_ns)
    for worker in timeline.recording["workers"]:
        yield from ownevents.of_worker(timeline, worker, base_ns)
        yield from _memory(timeline, worker["index"], worker["pid"], base_ns)


def _process(pid: int, name: str, order: int) -> Iterator[Event]:
    place: Place = {"pid": pid, "tid": 0}
    yield named("process", place, name)
    yield {"ph": "M", "name": "process_sort_index", "ts": 0, **place, "args": {"sort_index": order}}


class Lanes:
    """Rows in which intervals lie one after another; they come ordered by their start."""

    def __init__(self) -> None:
        self._ends_ns: list[int] = []

    def take(self, start_ns: int, end_ns: int) -> int:
        """The number of a row that is free then, from 1."""
        for i, free_ns in enumerate(self._ends_ns):
            if free_ns <= start_ns:
                self._ends_ns[i] = end_ns
                return i + 1
        self._ends_ns.append(end_ns)
        return len(self._ends_ns)


def _requests(timeline: Timeline, base_ns: int) -> Iterator[Event]:
    """As many rows as there were requests at once; each request with its stages, and an arrow to its batch."""
    batch_of = {i: batch for batch in timeline.batches for i in batch.spans}
    lanes, rows = Lanes(), set()
    for i in sorted(range(len(timeline.spans)), key=lambda i: timeline.spans[i]["received_ns"]):
        span = timeline.spans[i]
        row = lanes.take(span["received_ns"], _end_ns(span))
        place: Place = {"pid": REQUESTS_PID, "tid": row}
        if row not in rows:
            rows.add(row)
            yield named("thread", place, f"request {row}")
        yield from _request(span, place, base_ns)
        if i in batch_of:
            yield from _arrow(i, span, place, batch_of[i], base_ns)


def _request(span: Span, place: Place, base_ns: int) -> Iterator[Event]:
    begin_ns, end_ns = span["received_ns"], _end_ns(span)
    arguments = {"batch_id": span["batch_id"], "worker": span["worker"], "rows": span["rows"]}
    yield part("request", f"request {span['request_id']}", place, begin_ns - base_ns, end_ns - begin_ns, arguments)
    for stage in REQUEST_STAGES:
        # Cut at the request's end: a stage that is rounded beyond it would not lie within.
        done_ns = min(end_ns, begin_ns + _nanoseconds(span[f"{stage}_ms"]))  # type: ignore[literal-required]
        if done_ns > begin_ns:
            yield part("stage", stage, place, begin_ns - base_ns, done_ns - begin_ns)
        begin_ns = done_ns


def _arrow(number: int, span: Span, place: Place, batch: Batch, base_ns: int) -> Iterator[Event]:
    """From where the request leaves for its worker to its batch."""
    link = {"cat": "batch", "name": "batch", "id": number + 1}
    left_ns = max(span["received_ns"], batch.taken_ns - _nanoseconds(span["ipc_ms"]))
    yield {"ph": "s", **link, **place, "ts": microseconds(left_ns - base_ns)}
    yield {"ph": "f", "bp": "e", **link, **_batch_place(batch.worker), "ts": microseconds(batch.taken_ns - base_ns)}


def _batches(timeline: Timeline, base_ns: int) -> Iterator[Event]:
    for worker in sorted({batch.worker for batch in timeline.batches}):
        yield named("thread", _batch_place(worker), f"worker {worker}")
    for batch in timeline.batches:
        place = _batch_place(batch.worker)
        arguments = {"requests": len(batch.spans), "recorded": batch.is_recorded}
        duration_ns = batch.encoded_ns - batch.taken_ns
        yield part("batch", f"batch {batch.batch_id}", place, batch.taken_ns - base_ns, duration_ns, arguments)
        for stage, (begin_ns, end_ns) in zip(BATCH_STAGES, pairwise(batch.marks()), strict=True):
            if end_ns > begin_ns:
                yield part("stage", stage, place, begin_ns - base_ns, end_ns - begin_ns)


def _batch_place(worker: int) -> Place:
    return {"pid": BATCHES_PID, "tid": worker + 1}


def _memory(timeline: Timeline, worker: int, pid: int, base_ns: int) -> Iterator[Event]:
    for use in timeline.memory:
        if use.worker == worker:
            counter: dict[str, Any] = {"ph": "C", "name": f"allocated on {use.device}", "pid": pid, "tid": 0}
            for time_ns, size in zip(use.time_ns.tolist(), use.allocated_bytes.tolist(), strict=True):
                yield {**counter, "ts": microseconds(time_ns - base_ns), "args": {"bytes": size}}


def _end_ns(span: Span) -> int:
    return span["received_ns"] + _nanoseconds(span["total_ms"])


def _nanoseconds(milliseconds: float) -> int:
    return round(milliseconds * 1e6)

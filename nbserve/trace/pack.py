"""A timeline as one compressed block for the viewer in the browser. Pure; kernel or terminal.

The block is gzip of:

    u32 length of the header, the header as JSON (UTF-8), zeros up to a multiple of 8 bytes,
    then the arrays one after another, little-endian, each filled up with zeros to a multiple of 8 bytes.

The header:

    version      1
    endpoint     its name
    start_ns     the zero of all times, CLOCK_MONOTONIC, as decimal text (too long for a JavaScript number)
    duration_us  from there to the end of the last request or event
    tracks       [{kind: "cpu" | "gpu", worker, pid, number, name}]
    names        texts that the array `name` counts into
    details      texts that the array `detail` counts into
    categories   texts that the array `category` counts into (model.CATEGORIES)
    batches      [{batch_id, worker, start_us, stages: [[name, start_us, duration_us], ...], rows, recorded}]
    spans        [{request_id, batch, worker, start_us, stages: [[name, duration_us], ...], total_us}]
                 batch counts into batches; the stages follow each other from start_us; ordered by start
    ops          [OpRow], the 500 with most self time
    findings     [Finding]
    stacks       {worker: {name, file, line, total_ms, self_ms, children: [...]}}
    memory       [{worker, device, time_us: [...], bytes: [...], rows: [MemoryRow]}]
    notes        [text]
    settings     the endpoint's settings during the recording
    arrays       {name: [type, count]} in the order in which they follow; "i1", "i2", "i4" are signed integers,
                 "f4", "f8" floats

Times are in microseconds since `start_ns`. Arrays, all of one length, ordered by track and then by start, outer events
first: name i4, detail i4 (-1: none), track i2, start_us f8, duration_us f4, self_us f4, depth i2, batch i4 (-1: none),
correlation i4 (0: none; the same on a launch and its kernel), category i1.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from nbserve.recording import Span
from nbserve.trace import ops
from nbserve.trace.model import (
    BATCH_STAGES,
    CATEGORIES,
    REQUEST_STAGES,
    Batch,
    Events,
    Finding,
    MemoryUse,
    StackNode,
    Timeline,
)

VERSION = 1
MAX_EVENTS = 1_000_000
MAX_SPANS = 20_000
MAX_OPS = 500
_MAX_MEMORY_POINTS = 4_000
# Level 9 takes four times as long for 3 % less.
_GZIP_LEVEL = 6

_Array = NDArray[Any]


def pack(timeline: Timeline, findings: Sequence[Finding] = (), max_events: int = MAX_EVENTS) -> bytes:
    """The block described above; of more events than `max_events` it has the longest, and says so in a note."""
    notes = list(timeline.notes)
    events = _shortened(timeline.events, max_events, notes)
    spans = _chosen_spans(timeline, notes)
    start_ns, end_ns = timeline.extent_ns()
    columns = _columns(events, start_ns)
    header = {
        "version": VERSION,
        "endpoint": timeline.recording["endpoint"],
        "start_ns": str(start_ns),
        "duration_us": (end_ns - start_ns) / 1e3,
        "tracks": [asdict(track) for track in timeline.tracks],
        "names": list(events.names),
        "details": list(events.details),
        "categories": CATEGORIES,
        "batches": [_batch(batch, start_ns) for batch in timeline.batches],
        "spans": _spans(timeline, spans, start_ns),
        "ops": [asdict(row) for row in ops.table(timeline)[:MAX_OPS]],
        "findings": [asdict(finding) for finding in findings],
        "stacks": {str(worker): _node(root) for worker, root in timeline.stacks.items()},
        "memory": [_memory(use, start_ns) for use in timeline.memory],
        "notes": notes,
        "settings": dict(timeline.recording["settings"]),
        "arrays": {name: [column.dtype.str[1:], len(column)] for name, column in columns.items()},
    }
    return gzip.compress(_block(header, columns), _GZIP_LEVEL, mtime=0)


def unpack(block: bytes) -> tuple[dict[str, Any], dict[str, _Array]]:
    """The header and the arrays of a block."""
    data = gzip.decompress(block)
    (length,) = struct.unpack_from("<I", data)
    header = orjson.loads(data[4 : 4 + length])
    at = _padded(4 + length)
    columns = {}
    for name, (kind, count) in header["arrays"].items():
        columns[name] = np.frombuffer(data, f"<{kind}", count, at)
        at = _padded(at + columns[name].nbytes)
    return header, columns


def _shortened(events: Events, most: int, notes: list[str]) -> Events:
    if len(events) <= most:
        return events
    notes.append(f"Of {len(events):,} events the timeline shows the longest {most:,}.")
    longest = np.argpartition(events.duration_ns, len(events) - most)[-most:]
    return events.only(np.sort(longest))


def _columns(events: Events, start_ns: int) -> dict[str, _Array]:
    """The arrays, in the order in which they are written."""
    return {
        "name": events.name.astype("<i4"),
        "detail": events.detail.astype("<i4"),
        "track": events.track.astype("<i2"),
        "start_us": ((events.start_ns - start_ns) / 1e3).astype("<f8"),
        "duration_us": (events.duration_ns / 1e3).astype("<f4"),
        "self_us": (events.self_ns / 1e3).astype("<f4"),
        "depth": events.depth.astype("<i2"),
        "batch": events.batch.astype("<i4"),
        "correlation": events.correlation.astype("<i4"),
        "category": events.category.astype("<i1"),
    }


def _block(header: Mapping[str, Any], columns: Mapping[str, _Array]) -> bytes:
    text = orjson.dumps(header, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    parts = [struct.pack("<I", len(text)) + text, *(column.tobytes() for column in columns.values())]
    return b"".join(part.ljust(_padded(len(part)), b"\0") for part in parts)


def _padded(length: int) -> int:
    return (length + 7) & ~7


def _batch(batch: Batch, start_ns: int) -> dict[str, Any]:
    stages = [
        [name, (begin - start_ns) / 1e3, (end - begin) / 1e3]
        for name, (begin, end) in zip(BATCH_STAGES, pairwise(batch.marks()), strict=True)
    ]
    return {
        "batch_id": batch.batch_id,
        "worker": batch.worker,
        "start_us": (batch.taken_ns - start_ns) / 1e3,
        "stages": stages,
        "rows": len(batch.spans),
        "recorded": batch.is_recorded,
    }


def _chosen_spans(timeline: Timeline, notes: list[str]) -> list[int]:
    """Which requests are shown: those of recorded batches first, when there are too many."""
    count = len(timeline.spans)
    if count <= MAX_SPANS:
        return list(range(count))
    notes.append(f"Of {count:,} requests the timeline shows {MAX_SPANS:,}.")
    recorded = {i for batch in timeline.batches if batch.is_recorded for i in batch.spans}
    return sorted(sorted(range(count), key=lambda i: (i not in recorded, i))[:MAX_SPANS])


def _spans(timeline: Timeline, chosen: Sequence[int], start_ns: int) -> list[dict[str, Any]]:
    batch_of = {span: number for number, batch in enumerate(timeline.batches) for span in batch.spans}
    spans = [_span(timeline.spans[i], batch_of.get(i, -1), start_ns) for i in chosen]
    return sorted(spans, key=lambda span: span["start_us"])


def _span(span: Span, batch: int, start_ns: int) -> dict[str, Any]:
    return {
        "request_id": span["request_id"],
        "batch": batch,
        "worker": span["worker"],
        "start_us": (span["received_ns"] - start_ns) / 1e3,
        "stages": [[stage, span[f"{stage}_ms"] * 1e3] for stage in REQUEST_STAGES],  # type: ignore[literal-required]
        "total_us": span["total_ms"] * 1e3,
    }


def _node(node: StackNode) -> dict[str, Any]:
    # By hand: `asdict` copies each subtree once for each of its ancestors.
    return {
        "name": node.name,
        "file": node.file,
        "line": node.line,
        "total_ms": node.total_ms,
        "self_ms": node.self_ms,
        "children": [_node(child) for child in node.children],
    }


def _memory(use: MemoryUse, start_ns: int) -> dict[str, Any]:
    chosen = _peaks(use.allocated_bytes, _MAX_MEMORY_POINTS)
    return {
        "worker": use.worker,
        "device": use.device,
        "time_us": ((use.time_ns[chosen] - start_ns) / 1e3).tolist(),
        "bytes": use.allocated_bytes[chosen].tolist(),
        "rows": [asdict(row) for row in use.rows],
    }


def _peaks(values: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Positions of the highest of each of `count` stretches, so that no peak is lost."""
    if len(values) <= count:
        return np.arange(len(values))
    bounds = np.linspace(0, len(values), count + 1).astype(np.int64)
    return np.array([low + int(values[low:high].argmax()) for low, high in pairwise(bounds)])

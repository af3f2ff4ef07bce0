"""Puts what the server and the workers recorded on one clock, and every event into its batch. Kernel or terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from nbserve.errors import TraceError
from nbserve.recording import Recording
from nbserve.recording import WorkerRecording as Worker
from nbserve.trace import stacks
from nbserve.trace.batches import Annotations, batch_id_of, batches, linked, windows
from nbserve.trace.memory import uses
from nbserve.trace.model import CATEGORIES, Batch, Events, MemoryUse, StackNode, Timeline, Track
from nbserve.trace.nesting import nest, order
from nbserve.trace.parse import GPU, PYTHON, Lane, RawTrace, read_trace

_ANNOTATIONS = [CATEGORIES.index(name) for name in ("annotation", "gpu_annotation")]
_ANNOTATION = CATEGORIES.index("annotation")
_ON_GPU = np.isin(CATEGORIES, ("kernel", "memcpy", "memset", "gpu_annotation"))
_RUNS_ON_GPU = np.isin(CATEGORIES, ("kernel", "memcpy", "memset"))
_THREAD_NAME = re.compile(r"thread \S+ \((.*)\)")


class _Part(NamedTuple):
    """One worker's trace, on the clock of the requests."""

    worker: Worker
    trace: RawTrace
    start_ns: NDArray[np.int64]


def timeline(recording: Recording) -> Timeline:
    """The recording with the files that it names; what cannot be read is left out and noted."""
    notes: list[str] = []
    parts = [part for worker in recording["workers"] if (part := _part(worker, notes))]
    annotations = _annotations(parts)
    found = batches(recording, annotations)
    tracks, events = _stitched(parts, found, annotations)
    return Timeline(
        recording=recording,
        spans=recording["spans"],
        batches=found,
        tracks=tracks,
        events=events,
        stacks=_stacks(recording, notes),
        memory=_memory(recording, parts, notes),
        notes=notes,
    )


def _part(worker: Worker, notes: list[str]) -> _Part | None:
    if worker["error"]:
        notes.append(f"Worker {worker['index']}: {worker['error']}")
    if not worker["trace"]:
        return None
    try:
        trace = read_trace(worker["trace"])
    except TraceError as error:
        notes.append(f"Worker {worker['index']} has no operators to show: {error}.")
        return None
    notes += [f"Worker {worker['index']}: {note}" for note in trace.notes]
    return _Part(worker, trace, trace.start_ns - worker["epoch_offset_ns"])


def _annotations(parts: Sequence[_Part]) -> Annotations:
    """Where the traces say that each batch began and ended."""
    found: dict[tuple[int, int], tuple[int, int]] = {}
    for worker, trace, start_ns in parts:
        batch_ids = {number: batch_id_of(name) for number, name in enumerate(trace.names)}
        for i in np.flatnonzero(trace.category == _ANNOTATION).tolist():
            if (batch_id := batch_ids[int(trace.name[i])]) is not None:
                start = int(start_ns[i])
                found[worker["index"], batch_id] = start, start + int(trace.duration_ns[i])
    return found


def _stitched(parts: Sequence[_Part], found: Sequence[Batch], annotations: Annotations) -> tuple[list[Track], Events]:
    tracks: list[Track] = []
    names: dict[str, int] = {}
    details: dict[str, int] = {}
    columns: list[dict[str, NDArray[Any]]] = [_no_columns()]
    for part in parts:
        trace = part.trace
        track_of_lane = _add_tracks(part, tracks)
        columns.append(
            {
                "name": _renumbered(trace.names, names)[trace.name],
                "detail": np.append(_renumbered(trace.details, details), np.int32(-1))[trace.detail],
                "track": track_of_lane[trace.lane],
                "start_ns": part.start_ns,
                "duration_ns": trace.duration_ns,
                "batch": _batches_of(part, found, annotations),
                "correlation": _links(trace.correlation, columns),
                "category": trace.category,
            }
        )
    joined = {name: np.concatenate([column[name] for column in columns]) for name in columns[0]}
    return tracks, _nested(joined, list(names), list(details))


def _links(correlation: NDArray[np.int64], before: Sequence[Mapping[str, NDArray[Any]]]) -> NDArray[np.int64]:
    """Small numbers that no earlier worker has: each numbers its launches for itself."""
    taken = max(int(columns["correlation"].max(initial=0)) for columns in before)
    numbers = np.unique(correlation, return_inverse=True)[1].ravel() + 1 + taken
    return np.where(correlation == 0, 0, numbers)


def _no_columns() -> dict[str, NDArray[Any]]:
    kinds = {
        "name": np.int32,
        "detail": np.int32,
        "track": np.int16,
        "start_ns": np.int64,
        "duration_ns": np.int64,
        "batch": np.int32,
        "correlation": np.int64,
        "category": np.int8,
    }
    return {name: np.zeros(0, kind) for name, kind in kinds.items()}


def _nested(columns: Mapping[str, NDArray[Any]], names: list[str], details: list[str]) -> Events:
    """The columns in order, with what follows from how events enclose each other."""
    ranked = order(columns["track"], columns["start_ns"], columns["duration_ns"])
    sorted_columns = {name: column[ranked] for name, column in columns.items()}
    nesting = nest(sorted_columns["track"], sorted_columns["start_ns"], sorted_columns["duration_ns"])
    # Kernels of one stream may overlap, but none is a part of another.
    self_ns = np.where(_RUNS_ON_GPU[sorted_columns["category"]], sorted_columns["duration_ns"], nesting.self_ns)
    return Events(
        names=names,
        details=details,
        self_ns=self_ns,
        depth=nesting.depth,
        parent=nesting.parent,
        **sorted_columns,
    )


def _renumbered(texts: Sequence[str], known: dict[str, int]) -> NDArray[np.int32]:
    return np.array([known.setdefault(text, len(known)) for text in texts], np.int32)


def _add_tracks(part: _Part, tracks: list[Track]) -> NDArray[np.int16]:
    """Append the worker's tracks, its main thread first and its GPU last; gives the track of each lane."""
    lanes = part.trace.lanes
    track_of_lane = np.zeros(len(lanes), np.int16)
    for i in sorted(range(len(lanes)), key=lambda i: _lane_order(lanes[i])):
        track_of_lane[i] = len(tracks)
        tracks.append(_track(part, lanes[i]))
    return track_of_lane


def _lane_order(lane: Lane) -> tuple[bool, bool, int, int, int]:
    number = _whole(lane.tid)
    return lane.group == GPU, lane.pid != lane.tid, _whole(lane.pid), number, lane.group


def _track(part: _Part, lane: Lane) -> Track:
    pid, number = _whole(lane.pid), _whole(lane.tid)
    if lane.group == GPU:
        return Track("gpu", part.worker["index"], pid, number, f"GPU {lane.pid} stream {lane.tid}")
    name = _thread_name(part, lane) + (", Python" if lane.group == PYTHON else "")
    return Track("cpu", part.worker["index"], pid, number, name)


def _thread_name(part: _Part, lane: Lane) -> str:
    if lane.pid == lane.tid:
        return "main thread"
    if lane.pid == -1:
        return "profiler"
    given = _THREAD_NAME.fullmatch(part.trace.thread_names.get((lane.pid, lane.tid), ""))
    return f"{given[1]} {lane.tid}" if given and given[1] != "python" else f"thread {lane.tid}"


def _whole(number: object) -> int:
    return number if isinstance(number, int) else -1


def _batches_of(part: _Part, found: Sequence[Batch], annotations: Annotations) -> NDArray[np.int32]:
    """The batch of each event: by time, for a kernel by its launch, for a batch's own annotation by its number."""
    trace, worker = part.trace, part.worker["index"]
    own = [(i, batch) for i, batch in enumerate(found) if batch.worker == worker]
    on_gpu = _ON_GPU[trace.category]
    batch = linked(windows(own, annotations).at(part.start_ns), trace.correlation, on_gpu)
    index_of = {batch.batch_id: i for i, batch in own}
    by_name = [-1 if (number := batch_id_of(name)) is None else index_of.get(number, -1) for name in trace.names]
    named = np.append(np.array(by_name, np.int32), np.int32(-1))[trace.name]
    return np.where(np.isin(trace.category, _ANNOTATIONS) & (named >= 0), named, batch).astype(np.int32)


def _stacks(recording: Recording, notes: list[str]) -> dict[int, StackNode]:
    found = {}
    for worker in recording["workers"]:
        samples = _read(worker["samples"], f"Worker {worker['index']}'s Python stacks", notes)
        try:
            if samples.get("stacks"):
                found[worker["index"]] = stacks.tree(samples["stacks"])
        except (KeyError, TypeError, ValueError) as error:
            notes.append(f"Worker {worker['index']}'s Python stacks are not as they should be: {error!r}.")
    return found


def _memory(recording: Recording, parts: Sequence[_Part], notes: list[str]) -> list[MemoryUse]:
    traces = {part.worker["index"]: part.trace for part in parts}
    found: list[MemoryUse] = []
    for worker in recording["workers"]:
        recorded = _read(worker["memory"], f"Worker {worker['index']}'s memory profile", notes)
        trace = traces.get(worker["index"])
        try:
            found += uses(worker["index"], recorded, trace, worker["epoch_offset_ns"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            notes.append(f"Worker {worker['index']}'s memory profile is not as it should be: {error!r}.")
    return found


def _read(path: str | None, what: str, notes: list[str]) -> dict[str, Any]:
    """The JSON object in a file; empty, with a note, when there is none."""
    if not path:
        return {}
    try:
        content = orjson.loads(Path(path).read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        notes.append(f"{what} cannot be read: {error}.")
        return {}
    if not isinstance(content, dict):
        notes.append(f"{what} cannot be read: the file holds no JSON object.")
        return {}
    return content

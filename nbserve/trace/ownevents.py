"""A worker's own events for a Chrome trace: copied from its file while that is there, else written anew. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import floor
from pathlib import Path
from typing import Any

import numpy as np

from nbserve.errors import TraceError
from nbserve.recording import WorkerRecording as Worker
from nbserve.trace.model import CATEGORIES, Events, Timeline, Track
from nbserve.trace.parse import CATEGORY_NAMES
from nbserve.trace.salvage import load

Event = dict[str, Any]
Place = dict[str, Any]

# Above any process id. Workers that share a GPU get a process each for what they ran on it.
_GPU_PID = 2_000_001_000
_GPUS_PER_WORKER = 1_000
_LINKS_PER_WORKER = 1 << 40

_KINETO_NAME = {name: kineto for kineto, name in reversed(CATEGORY_NAMES.items())}
_RUNS_ON_GPU = np.isin(CATEGORIES, ("kernel", "memcpy", "memset"))


def of_worker(timeline: Timeline, worker: Worker, base_ns: int) -> Iterator[Event]:
    """All of the worker's events, with times after `base_ns` on the clock of the requests."""
    if not worker["trace"] or not Path(worker["trace"]).is_file():
        yield from _rebuilt(timeline, worker["index"], base_ns)
        return
    tracks = [track for track in timeline.tracks if track.worker == worker["index"]]
    try:
        loaded = load(worker["trace"])
        shift_ns = loaded.base_ns - worker["epoch_offset_ns"] - base_ns
        yield from _copied(loaded.events(), shift_ns, worker["index"], tracks)
    except TraceError:
        # Said in the timeline's notes.
        return


def microseconds(time_ns: int) -> float:
    """As Perfetto needs it: it cuts off what is less than a nanosecond, and 0.057 * 1000 is a bit less than 57."""
    return round(time_ns / 1000 + 0.0002, 4)


def named(what: str, place: Place, name: str) -> Event:
    """What a process or a thread is called."""
    return {"ph": "M", "name": f"{what}_name", "ts": 0, **place, "args": {"name": name}}


def part(
    category: str, name: str, place: Place, start_ns: int, duration_ns: int, arguments: Event | None = None
) -> Event:
    """One thing that took time."""
    times = {"ts": microseconds(start_ns), "dur": microseconds(duration_ns)}
    return {"ph": "X", "cat": category, "name": name, **place, **times, "args": arguments or {}}


def _copied(events: Iterator[Any], shift_ns: int, worker: int, tracks: Sequence[Track]) -> Iterator[Event]:
    # Kineto names all eight GPUs whatever was used.
    used = {track.pid for track in tracks}
    gpus = {track.pid for track in tracks if track.kind == "gpu"}
    for event in events:
        if not isinstance(event, dict) or event.get("cat") == "Trace":
            continue
        pid = event.get("pid")
        if isinstance(pid, int) and pid in used and (moved := _moved(event, shift_ns)) is not None:
            yield _renumbered(moved, worker, pid if pid in gpus else None)


def _moved(event: Event, shift_ns: int) -> Event | None:
    """The event with a shifted time; None when it has none."""
    start_us: Any = event.get("ts")
    duration_us: Any = event.get("dur", 0)
    if not _is_time(start_us) or not _is_time(duration_us):
        return None
    times = {"ts": 0.0 if event.get("ph") == "M" else microseconds(_nanoseconds(start_us) + shift_ns)}
    if "dur" in event:
        times["dur"] = microseconds(max(0, _nanoseconds(duration_us)))
    return event | times


def _renumbered(event: Event, worker: int, gpu: int | None) -> Event:
    """Workers number their arrows, and name their processes, each for itself."""
    if gpu is not None:
        event["pid"] = _gpu_pid(worker, gpu)
    if event.get("ph") in ("s", "t", "f") and isinstance(event.get("id"), int):
        event["id"] += worker * _LINKS_PER_WORKER
    if event.get("name") == "process_name":
        event["args"] = {"name": _process_name(worker, gpu)}
    return event


def _nanoseconds(value: float) -> int:
    whole = floor(value)
    return whole * 1000 + round((value - whole) * 1000)


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < 4e15


def _gpu_pid(worker: int, gpu: int) -> int:
    return _GPU_PID + worker * _GPUS_PER_WORKER + gpu % _GPUS_PER_WORKER


def _process_name(worker: int, gpu: int | None) -> str:
    return f"worker {worker}" if gpu is None else f"worker {worker}, GPU {gpu}"


def _rebuilt(timeline: Timeline, worker: int, base_ns: int) -> Iterator[Event]:
    """From what was read of the trace: times, names, arguments and arrows; Kineto's other fields are lost."""
    places = {number: _place(track) for number, track in enumerate(timeline.tracks) if track.worker == worker}
    for number, place in places.items():
        track = timeline.tracks[number]
        yield named("process", place, _process_name(worker, track.pid if track.kind == "gpu" else None))
        yield named("thread", place, track.name)
    written = _writer(timeline.events, base_ns)
    for i in np.flatnonzero(np.isin(timeline.events.track, list(places))).tolist():
        yield from written(i, places[int(timeline.events.track[i])])


def _place(track: Track) -> Place:
    if track.kind == "gpu":
        return {"pid": _gpu_pid(track.worker, track.pid), "tid": track.number}
    # Python functions have a track of their own in the thread that ran them.
    return {"pid": track.pid, "tid": track.number}


def _writer(events: Events, base_ns: int) -> Callable[[int, Place], Iterator[Event]]:
    def write(i: int, place: Place) -> Iterator[Event]:
        start_ns, correlation = int(events.start_ns[i]) - base_ns, int(events.correlation[i])
        category = CATEGORIES[events.category[i]]
        arguments: Event = {"batch": int(events.batch[i])}
        if events.detail[i] >= 0:
            arguments["arguments"] = events.details[events.detail[i]]
        if correlation:
            arguments["correlation"] = correlation
            link = {"ph": "f", "bp": "e"} if _RUNS_ON_GPU[events.category[i]] else {"ph": "s"}
            yield {**link, "cat": "ac2g", "name": "ac2g", "id": correlation, **place, "ts": microseconds(start_ns)}
        name, kind = events.names[events.name[i]], _KINETO_NAME.get(category, category)
        yield part(kind, name, place, start_ns, int(events.duration_ns[i]), arguments)

    return write

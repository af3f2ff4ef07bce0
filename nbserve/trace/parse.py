"""Reads torch's Chrome traces into columns, in one pass. Pure; kernel or terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nbserve.trace.details import Details
from nbserve.trace.model import CATEGORIES
from nbserve.trace.salvage import load

CPU, PYTHON, GPU = range(3)

CATEGORY_NAMES = {
    "cpu_op": "op",
    "user_annotation": "annotation",
    "cuda_runtime": "runtime",
    "cuda_driver": "runtime",
    "xpu_runtime": "runtime",
    "privateuse1_runtime": "runtime",
    "python_function": "python",
    "kernel": "kernel",
    "gpu_memcpy": "memcpy",
    "gpu_memset": "memset",
    "gpu_user_annotation": "gpu_annotation",
    "overhead": "overhead",
}
_CATEGORY = {cat: CATEGORIES.index(name) for cat, name in CATEGORY_NAMES.items()}
_OTHER = CATEGORIES.index("other")
_PYTHON = CATEGORIES.index("python")
_GROUP = tuple(
    PYTHON if name == "python" else GPU if name in ("kernel", "memcpy", "memset", "gpu_annotation") else CPU
    for name in CATEGORIES
)
_LINKED = [CATEGORIES.index(name) for name in ("runtime", "kernel", "memcpy", "memset")]
# torch leaves these out of its tables: they are its own questions, a few nanoseconds each.
_LEFT_OUT = frozenset(
    (
        "aten::is_leaf",
        "aten::output_nr",
        "aten::_version",
        "profiler::_record_function_enter",
        "profiler::_record_function_enter_new",
        "profiler::_record_function_exit",
    )
)
_LEFT_OUT_CATEGORIES = frozenset(("Trace", "cpu_instant_event"))
_FLOWS = frozenset(("ac2g", "async_gpu", "async_cpu_to_gpu"))
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_DEVICES = {0: "cpu", 1: "cuda", 12: "xpu", 13: "mps", 20: "privateuse1"}

# Sums of a base time and these stay well within 63 bits of nanoseconds.
_MAX_BASE_NS = 4 * 10**18
_MAX_START_US = 4e15
_MAX_DURATION_US = 1e12


class Lane(NamedTuple):
    """Where events follow and enclose each other: a thread, its Python functions, or a stream of a GPU."""

    group: int
    pid: Hashable
    tid: Hashable


@dataclass(frozen=True)
class RawTrace:
    """One file's events as columns of one length, in the order of the file, with Unix times."""

    lanes: Sequence[Lane]
    thread_names: Mapping[tuple[Hashable, Hashable], str]
    names: Sequence[str]
    details: Sequence[str]
    name: NDArray[np.int32]
    detail: NDArray[np.int32]
    category: NDArray[np.int8]
    lane: NDArray[np.int32]
    start_ns: NDArray[np.int64]
    duration_ns: NDArray[np.int64]
    correlation: NDArray[np.int64]
    memory: Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64]]]
    notes: Sequence[str]

    def __len__(self) -> int:
        return len(self.name)


def read_trace(path: str | Path) -> RawTrace:
    """The trace at `path`; what is damaged is left out and noted, TraceError when nothing is left."""
    loaded = load(path)
    reader = _Reader()
    for chunk in loaded.chunks:
        reader.read(chunk)
    return reader.result(loaded.base_ns, loaded.notes)


class _Columns(NamedTuple):
    """Events as columns; times are in us after the trace's base time, nan where there is none."""

    name: NDArray[np.int32]
    detail: NDArray[np.int32]
    category: NDArray[np.int8]
    lane: NDArray[np.int32]
    start_us: NDArray[np.float64]
    duration_us: NDArray[np.float64]
    correlation: NDArray[np.int64]


class _Reader:
    """Takes events chunk by chunk; in a chunk each is a row of plain numbers, then they are columns."""

    def __init__(self) -> None:
        self._names: dict[str, int] = {}
        self._details = Details()
        self._lanes: dict[Lane, int] = {}
        self._rows: list[tuple[int, int, int, int, Any, Any, int]] = []
        self._chunks: list[_Columns] = [_columns([])]
        self._flows: dict[tuple[Hashable, Hashable, Any], int] = {}
        self._thread_names: dict[tuple[Hashable, Hashable], str] = {}
        self._memory: dict[str, tuple[list[float], list[int]]] = {}
        self._skipped = 0

    def read(self, events: Iterable[Any]) -> None:
        for event in events:
            try:
                phase = event["ph"]
                if phase == "X":
                    self._add(event)
                elif phase == "i" or phase == "I":
                    self._note_memory(event)
                elif phase == "M":
                    self._note_name(event)
                elif phase == "s" or phase == "f":
                    self._note_flow(event)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
                self._skipped += 1
        self._chunks.append(_columns(self._rows))
        self._rows.clear()

    def _add(self, event: dict[str, Any]) -> None:
        name: str = event["name"]
        kind: Any = event.get("cat")
        if name in _LEFT_OUT or kind in _LEFT_OUT_CATEGORIES:
            return
        category = _CATEGORY.get(kind, _OTHER)
        if category == _PYTHON and " at 0x" in name:
            name = _ADDRESS.sub("", name)
        names, lanes = self._names, self._lanes
        name_id = names.get(name)
        if name_id is None:
            name_id = names[_text(name)] = len(names)
        lane = Lane(_GROUP[category], event["pid"], event["tid"])
        lane_id = lanes.get(lane)
        if lane_id is None:
            lane_id = lanes[lane] = len(lanes)
        detail, correlation = -1, 0
        if arguments := event.get("args"):
            detail = self._details.number(arguments)
            correlation = _number(arguments.get("correlation"))
        self._rows.append((name_id, detail, category, lane_id, event["ts"], event["dur"], correlation))

    def _note_memory(self, event: dict[str, Any]) -> None:
        if event.get("name") != "[memory]":
            return
        arguments = event["args"]
        kind, number = int(arguments["Device Type"]), int(arguments["Device Id"])
        device = _DEVICES.get(kind, f"device {kind}") + (f":{number}" if number >= 0 else "")
        time_us, allocated = float(event["ts"]), int(arguments["Total Allocated"])
        if not _is_time(time_us) or abs(allocated) > _MAX_BASE_NS:
            raise ValueError
        times, sizes = self._memory.setdefault(device, ([], []))
        times.append(time_us)
        sizes.append(allocated)

    def _note_name(self, event: dict[str, Any]) -> None:
        if event.get("name") == "thread_name":
            self._thread_names[event["pid"], event["tid"]] = str(event["args"]["name"])

    def _note_flow(self, event: dict[str, Any]) -> None:
        if event.get("cat") in _FLOWS:
            self._flows[event["pid"], event["tid"], event["ts"]] = _number(event["id"])

    def result(self, base: Any, notes: list[str]) -> RawTrace:
        base_ns = base if isinstance(base, int) and abs(base) < _MAX_BASE_NS else 0
        if base_ns != base:
            notes.append("The trace does not say when it was made: its events are not where their requests are.")
        columns = _Columns._make(np.concatenate(parts) for parts in zip(*self._chunks, strict=True))
        columns = columns._replace(correlation=self._correlations(columns))
        good = (np.abs(columns.start_us) < _MAX_START_US) & (np.abs(columns.duration_us) < _MAX_DURATION_US)
        columns = _Columns._make(column[good] for column in columns)
        self._tell(notes, int((~good).sum()), int((columns.duration_us < 0).sum()))
        return RawTrace(
            lanes=list(self._lanes),
            thread_names=self._thread_names,
            names=list(self._names),
            details=self._details.texts(),
            name=columns.name,
            detail=columns.detail,
            category=columns.category,
            lane=columns.lane,
            start_ns=base_ns + nanoseconds(columns.start_us),
            duration_ns=nanoseconds(np.maximum(columns.duration_us, 0)),
            correlation=columns.correlation,
            memory={
                device: (base_ns + nanoseconds(_floats(times)), np.array(sizes, np.int64))
                for device, (times, sizes) in self._memory.items()
            },
            notes=notes,
        )

    def _tell(self, notes: list[str], bad: int, negative: int) -> None:
        if left_out := bad + self._skipped:
            notes.append(f"Events left out as they have no usable name, place or time: {left_out:,}.")
        if negative:
            notes.append(f"Events that end before they begin, and count as 0: {negative:,}.")

    def _correlations(self, columns: _Columns) -> NDArray[np.int64]:
        """Of launches and kernels; from the arrows between them where events do not name theirs."""
        if not self._flows:
            return columns.correlation
        found: NDArray[np.int64] = columns.correlation.copy()
        lanes = list(self._lanes)
        for i in np.flatnonzero((found == 0) & np.isin(columns.category, _LINKED)).tolist():
            _, pid, tid = lanes[int(columns.lane[i])]
            found[i] = self._flows.get((pid, tid, float(columns.start_us[i])), 0)
        return found


def _columns(rows: Sequence[tuple[int, int, int, int, Any, Any, int]]) -> _Columns:
    name, detail, category, lane, start_us, duration_us, correlation = zip(*rows, strict=True) if rows else [()] * 7
    return _Columns(
        np.array(name, np.int32),
        np.array(detail, np.int32),
        np.array(category, np.int8),
        np.array(lane, np.int32),
        _floats(start_us),
        _floats(duration_us),
        np.array(correlation, np.int64),
    )


def nanoseconds(microseconds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Exact to the nanosecond up to 2**43 us: more than Kineto's base times leave."""
    # Multiplied as a whole, 4e12 us would not fit into a float's 53 bits.
    whole = np.floor(microseconds)
    result: NDArray[np.int64] = whole.astype(np.int64) * 1000 + np.rint((microseconds - whole) * 1000).astype(np.int64)
    return result


def _floats(values: Sequence[Any]) -> NDArray[np.float64]:
    """As numbers; nan for what is none."""
    try:
        found = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        found = None
    # Lists of one length would be a table.
    if found is None or found.ndim != 1:
        return np.array([_float(value) for value in values], np.float64)
    return found


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _is_time(microseconds: float) -> bool:
    return abs(microseconds) < _MAX_START_US


def _number(value: Any) -> int:
    """An id, 0 for what is none or does not fit."""
    return value if isinstance(value, int) and abs(value) < 1 << 62 else 0


def _text(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError("a name is a text")
    return name

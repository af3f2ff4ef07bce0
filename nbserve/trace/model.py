"""What a profile is made of: plain data on one clock, CLOCK_MONOTONIC nanoseconds. Pure; kernel or terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nbserve.recording import Recording, Span

TrackKind = Literal["cpu", "gpu"]

# What a request goes through, in order, and the part of it that its batch spends in the worker.
REQUEST_STAGES = (
    "receive",
    "queue",
    "batch_wait",
    "ipc",
    "preprocess",
    "inference",
    "postprocess",
    "encode",
    "respond",
)
BATCH_STAGES = REQUEST_STAGES[4:8]

# What `Events.category` counts into. An annotation is a `record_function` (its GPU twin spans the kernels it launched),
# runtime are calls such as cudaLaunchKernel, overhead is the profiler's own time.
CATEGORIES = (
    "op",
    "annotation",
    "runtime",
    "python",
    "kernel",
    "memcpy",
    "memset",
    "gpu_annotation",
    "overhead",
    "other",
)


@dataclass(frozen=True)
class Track:
    """One row of the timeline: a thread of a worker, or a stream of its GPU."""

    kind: TrackKind
    worker: int
    pid: int
    number: int
    name: str


@dataclass(frozen=True)
class Batch:
    """One batch in its worker; `spans` are indexes of its requests in `Timeline.spans`.

    A recorded batch whose requests are unknown has all its time from `preprocessed_ns` to `inferred_ns`.
    """

    batch_id: int
    worker: int
    spans: tuple[int, ...]
    taken_ns: int
    preprocessed_ns: int
    inferred_ns: int
    postprocessed_ns: int
    encoded_ns: int
    is_recorded: bool

    def marks(self) -> tuple[int, int, int, int, int]:
        """The borders of preprocess, inference, postprocess and encode."""
        return self.taken_ns, self.preprocessed_ns, self.inferred_ns, self.postprocessed_ns, self.encoded_ns


@dataclass(frozen=True)
class Events:
    """Operators, kernels and annotations as columns of one length, by track and then by start.

    `name` counts into `names`, `detail` into `details` (shapes and types, for people; -1: none), `track` into the
    timeline's tracks, `batch` into its batches (-1: outside of any), `parent` into these columns (-1: none).
    `correlation` ties a launch to its kernel (0: none); `category` counts into CATEGORIES. A detail reads like the
    arguments of a call, "float32[8,64], float32[64], 1", which flops.flops_of understands. Python functions have tracks
    of their own, so that operators nest in each other alike with and without stacks.
    """

    names: Sequence[str]
    details: Sequence[str]
    name: NDArray[np.int32]
    detail: NDArray[np.int32]
    track: NDArray[np.int16]
    start_ns: NDArray[np.int64]
    duration_ns: NDArray[np.int64]
    self_ns: NDArray[np.int64]
    depth: NDArray[np.int16]
    parent: NDArray[np.int32]
    batch: NDArray[np.int32]
    correlation: NDArray[np.int64]
    category: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))

    def __len__(self) -> int:
        return len(self.name)

    def only(self, chosen: NDArray[np.int64]) -> Events:
        """The events at these positions, which are in order; parents that are not among them are gone."""
        columns = {f.name: getattr(self, f.name)[chosen] for f in fields(self) if f.name not in ("names", "details")}
        place = np.full(len(self) + 1, -1, np.int32)
        place[chosen] = np.arange(len(chosen), dtype=np.int32)
        return replace(self, **columns | {"parent": place[columns["parent"]]})


@dataclass(frozen=True)
class StackNode:
    """One function in a tree of sampled Python stacks; `total_ms` counts its callees in."""

    name: str
    file: str
    line: int
    total_ms: float
    self_ms: float
    children: tuple[StackNode, ...] = ()


@dataclass(frozen=True)
class MemoryRow:
    """What one place allocated: `bytes` at the end of the recording, `peak_bytes` at most."""

    place: str
    bytes: int
    peak_bytes: int
    count: int


@dataclass(frozen=True)
class MemoryUse:
    """Memory of one worker: what torch had allocated over time, and the places that Python memory comes from."""

    worker: int
    time_ns: NDArray[np.int64]
    allocated_bytes: NDArray[np.int64]
    device: str
    rows: tuple[MemoryRow, ...]


@dataclass(frozen=True)
class Timeline:
    """One recording, stitched: requests, batches, and the workers' events on one clock."""

    recording: Recording
    spans: Sequence[Span]
    batches: Sequence[Batch]
    tracks: Sequence[Track]
    events: Events
    stacks: Mapping[int, StackNode] = field(default_factory=dict)
    memory: Sequence[MemoryUse] = ()
    notes: Sequence[str] = ()

    def extent_ns(self) -> tuple[int, int]:
        """When the first thing begins, and when the last ends."""
        starts = [self.recording["started_ns"], *(span["received_ns"] for span in self.spans)]
        ends = [
            self.recording["ended_ns"],
            *(span["received_ns"] + round(span["total_ms"] * 1e6) for span in self.spans),
        ]
        if len(self.events):
            starts.append(int(self.events.start_ns.min()))
            ends.append(int((self.events.start_ns + self.events.duration_ns).max()))
        return min(starts), max(ends)


@dataclass(frozen=True)
class OpRow:
    """One operator or kernel over the whole recording; `share` is its part of all self times on its device.

    All batches are one row "nbserve.batch": its self time is what they spent outside of any operator. `shapes` are the
    arguments that took most of the time.
    """

    name: str
    device: TrackKind
    calls: int
    self_us: float
    total_us: float
    share: float
    shapes: str = ""


@dataclass(frozen=True)
class Finding:
    """One diagnosis: what was measured against which threshold, why it costs time, and one fix.

    `figure` is for people, `value` and `threshold` are its numbers. `expected_gain` is how many times faster requests
    may get (1.0: nothing is to be gained). `settings` are what an A/B can try; empty when the fix is in the code.
    """

    name: str
    figure: str
    value: float
    threshold: float
    why: str
    fix: str
    expected_gain: float
    settings: Mapping[str, Any] = field(default_factory=dict)

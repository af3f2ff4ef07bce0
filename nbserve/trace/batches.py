"""Which batches a recording has, and which of them each event belongs to. Pure; kernel or terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nbserve.recording import Recording, Span
from nbserve.trace.model import BATCH_STAGES, REQUEST_STAGES, Batch

_ANNOTATION = re.compile(r"nbserve\.batch (\d+)")

# By (worker, batch id): start and end of the annotation around a batch.
Annotations = Mapping[tuple[int, int], tuple[int, int]]


class Windows(NamedTuple):
    """The times of one worker's batches, in order; `batch` counts into all batches."""

    start_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    batch: NDArray[np.int32]

    def at(self, time_ns: NDArray[np.int64]) -> NDArray[np.int32]:
        """The batch at each of these times, -1 for none."""
        if not len(self.batch):
            return np.full(len(time_ns), -1, np.int32)
        latest = np.searchsorted(self.start_ns, time_ns, "right") - 1
        inside = (latest >= 0) & (time_ns <= self.end_ns[latest])
        return np.where(inside, self.batch[latest], np.int32(-1)).astype(np.int32)


def batch_id_of(annotation: str) -> int | None:
    """The batch that an annotation is about."""
    match = _ANNOTATION.fullmatch(annotation)
    return int(match[1]) if match else None


def batches(recording: Recording, annotations: Annotations) -> list[Batch]:
    """All batches that the spans or the traces tell of, in the order in which the workers took them."""
    recorded = {(worker["index"], batch_id) for worker in recording["workers"] for batch_id in worker["batches"]}
    recorded |= set(annotations)
    members: dict[tuple[int, int], list[int]] = {}
    for i, span in enumerate(recording["spans"]):
        members.setdefault((span["worker"], span["batch_id"]), []).append(i)
    found = [_of_spans(key, spans, recording["spans"], key in recorded) for key, spans in members.items()]
    found += [_of_annotation(key, times) for key, times in annotations.items() if key not in members]
    return sorted(found, key=lambda batch: (batch.taken_ns, batch.worker))


def _of_spans(key: tuple[int, int], members: Sequence[int], spans: Sequence[Span], is_recorded: bool) -> Batch:
    worker, batch_id = key
    first = spans[members[0]]
    return Batch(batch_id, worker, tuple(members), *_marks(first), is_recorded=is_recorded)


def _marks(span: Span) -> tuple[int, int, int, int, int]:
    """When the worker took the batch of a request, and when each of its stages ended."""
    at = span["received_ns"]
    for stage in REQUEST_STAGES[: REQUEST_STAGES.index(BATCH_STAGES[0])]:
        at += _stage_ns(span, stage)
    marks = [at]
    for stage in BATCH_STAGES:
        marks.append(marks[-1] + _stage_ns(span, stage))
    taken, preprocessed, inferred, postprocessed, encoded = marks
    return taken, preprocessed, inferred, postprocessed, encoded


def _stage_ns(span: Span, stage: str) -> int:
    duration_ms: float = span[f"{stage}_ms"]  # type: ignore[literal-required]
    return round(duration_ms * 1e6)


def _of_annotation(key: tuple[int, int], times: tuple[int, int]) -> Batch:
    worker, batch_id = key
    start_ns, end_ns = times
    return Batch(batch_id, worker, (), start_ns, start_ns, end_ns, end_ns, end_ns, is_recorded=True)


def windows(found: Iterable[tuple[int, Batch]], annotations: Annotations) -> Windows:
    """The times of these batches of one worker, given with their index."""
    times = []
    for index, batch in found:
        # The annotation begins a little before the first stage, and the two clocks agree to some microseconds.
        key = (batch.worker, batch.batch_id)
        start_ns, end_ns = annotations.get(key, (batch.taken_ns, batch.encoded_ns))
        times.append((min(start_ns, batch.taken_ns), max(end_ns, batch.encoded_ns), index))
    columns = np.array(sorted(times), np.int64).reshape(-1, 3)
    return Windows(columns[:, 0], columns[:, 1], columns[:, 2].astype(np.int32))


def linked(batch: NDArray[np.int32], correlation: NDArray[np.int64], on_gpu: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Of what runs on a GPU the batch that launched it, which may have ended before."""
    launch = np.flatnonzero(~on_gpu & (correlation != 0))
    launch = launch[np.argsort(correlation[launch], kind="stable")]
    if not len(launch):
        return batch
    place = np.searchsorted(correlation[launch], correlation).clip(max=len(launch) - 1)
    known = on_gpu & (correlation != 0) & (correlation[launch][place] == correlation)
    return np.where(known, batch[launch][place], batch).astype(np.int32)

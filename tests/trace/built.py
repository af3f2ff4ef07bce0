"""Timelines made up for tests: all batches alike, with what a test says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nbserve.recording import Recording, Span
from nbserve.trace.model import CATEGORIES, Batch, Events, StackNode, Timeline, Track
from nbserve.trace.nesting import nest, order

STAGES = ("receive", "queue", "batch_wait", "ipc", "preprocess", "inference", "postprocess", "encode", "respond")
IN_WORKER = STAGES[4:8]
# A second of every recording is one batch's.
PERIOD_NS = 1_000_000_000

MAIN = Track("cpu", 0, 40_000, 40_000, "main thread")
GPU = Track("gpu", 0, 0, 7, "GPU 0 stream 7")


@dataclass(frozen=True)
class Op:
    """An operator `after_us` after the end of the one before; `inside` are those that it calls."""

    name: str
    us: float
    after_us: float = 0.0
    stage: str = "inference"
    detail: str = ""
    category: str = "op"
    inside: tuple[Op, ...] = ()


@dataclass
class Built:
    """What a test says; `timeline()` makes it."""

    batches: int = 10
    rows: int = 1
    stages: dict[str, float] = field(default_factory=dict)
    ops: Sequence[Op] = ()
    kernels: Sequence[Op] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    cores: int = 2
    stack: StackNode | None = None
    first_ms: float | None = None
    trace: str | None = "w0.trace.json"

    def timeline(self) -> Timeline:
        numbers = range(self.batches)
        spans = [self._span(number, row) for number in numbers for row in range(self.rows)]
        return Timeline(
            recording=self._recording(spans),
            spans=spans,
            batches=[self._batch(number) for number in numbers],
            tracks=[MAIN, GPU],
            events=self._events(),
            stacks={} if self.stack is None else {0: self.stack},
        )

    def _ms(self, number: int, stage: str) -> float:
        if number == 0 and self.first_ms is not None and stage == "inference":
            return self.first_ms
        return {"receive": 0.02, "respond": 0.1, "ipc": 0.1, **self.stages}.get(stage, 0.0)

    def _span(self, number: int, row: int) -> Span:
        times = {stage: self._ms(number, stage) for stage in STAGES}
        before_ms = sum(times[stage] for stage in STAGES[:4])
        return {  # type: ignore[return-value, typeddict-item]
            "request_id": f"{number:x}-{row:x}",
            "batch_id": number,
            "rows": self.rows,
            "worker": 0,
            "received_ns": self._taken_ns(number) - round(before_ms * 1e6),
            **{f"{stage}_ms": ms for stage, ms in times.items()},
            "total_ms": sum(times.values()),
        }

    def _taken_ns(self, number: int) -> int:
        return (number + 1) * PERIOD_NS

    def _batch(self, number: int) -> Batch:
        marks = [self._taken_ns(number)]
        for stage in IN_WORKER:
            marks.append(marks[-1] + round(self._ms(number, stage) * 1e6))
        taken, preprocessed, inferred, postprocessed, encoded = marks
        spans = tuple(range(number * self.rows, (number + 1) * self.rows))
        return Batch(number, 0, spans, taken, preprocessed, inferred, postprocessed, encoded, is_recorded=True)

    def _recording(self, spans: list[Span]) -> Recording:
        threads = self.facts.get("num_threads", 1)
        return {
            "endpoint": "net",
            "version": "1",
            "settings": {"workers": 1, "max_batch_size": 32, "policy": "adaptive", **self.settings},
            "cores": self.cores,
            "started_ns": 0,
            "ended_ns": (self.batches + 1) * PERIOD_NS,
            "spans": spans,
            "workers": [
                {
                    "index": 0,
                    "pid": 40_000,
                    "device": "cpu",
                    "threads": threads,
                    "batches": list(range(self.batches)),
                    "started_ns": 0,
                    "ended_ns": (self.batches + 1) * PERIOD_NS,
                    "epoch_offset_ns": 0,
                    "trace": self.trace,
                    "samples": None,
                    "memory": None,
                    "facts": {"num_threads": threads, "first_batch": self.first_ms is not None, **self.facts},
                    "error": None,
                }
            ],
        }

    def _events(self) -> Events:
        rows: list[tuple[int, Op, float, float, int]] = []
        for number in range(self.batches):
            batch = self._batch(number)
            begins = dict(zip(IN_WORKER, batch.marks(), strict=False))
            for track, ops in enumerate((self.ops, self.kernels)):
                at = dict(begins)
                for op in ops:
                    start = at[op.stage] + op.after_us * 1e3
                    at[op.stage] = start + op.us * 1e3
                    rows += _with_inner(track, op, start, number)
        return _columns(rows)


def _with_inner(track: int, op: Op, start_ns: float, number: int) -> list[tuple[int, Op, float, float, int]]:
    rows = [(track, op, start_ns, op.us * 1e3, number)]
    at = start_ns
    for inner in op.inside:
        at += inner.after_us * 1e3
        rows += _with_inner(track, inner, at, number)
        at += inner.us * 1e3
    return rows


def _columns(rows: list[tuple[int, Op, float, float, int]]) -> Events:
    names: dict[str, int] = {}
    details: dict[str, int] = {}
    track = np.array([row[0] for row in rows], np.int16)
    start = np.array([round(row[2]) for row in rows], np.int64)
    duration = np.array([round(row[3]) for row in rows], np.int64)
    ranked = order(track, start, duration)
    nesting = nest(track[ranked], start[ranked], duration[ranked])
    ops = [rows[i][1] for i in ranked]
    name = [names.setdefault(op.name, len(names)) for op in ops]
    detail = [details.setdefault(op.detail, len(details)) if op.detail else -1 for op in ops]
    return Events(
        names=list(names),
        details=list(details),
        name=np.array(name, np.int32),
        detail=np.array(detail, np.int32),
        track=track[ranked],
        start_ns=start[ranked],
        duration_ns=duration[ranked],
        self_ns=nesting.self_ns,
        depth=nesting.depth,
        parent=nesting.parent,
        batch=np.array([rows[i][4] for i in ranked], np.int32),
        correlation=np.zeros(len(rows), np.int64),
        category=np.array([CATEGORIES.index(op.category) for op in ops], np.int8),
    )

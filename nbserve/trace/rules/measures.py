"""What the rules look at, measured once: where requests, batches and operators spent their time. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, median
from typing import Any

import numpy as np

from nbserve.recording import Recording, Span
from nbserve.trace import stacks
from nbserve.trace.model import Batch, StackNode, Timeline
from nbserve.trace.rules.gpu import GpuUse, covered_ns, gpu_use
from nbserve.trace.rules.operators import COPIES, ITEMS, MATMULS, PARTS, Chosen, Operators, operators
from nbserve.trace.rules.operators import STAGES as BATCH_STAGES
from nbserve.trace.rules.thresholds import ITEM_CALLS, MOST_GAIN, SIZE_SPREAD, SIZED_BATCHES
from nbserve.trace.rules.typical import midmean

STAGES = ("receive", "queue", "batch_wait", "ipc", *BATCH_STAGES, "respond")


@dataclass(frozen=True)
class Measures:
    """What a typical request of a warm batch spends: the first batch of a worker's life is left out.

    `stage_ms` is without what recording the operators adds, `recorded` are the batches whose operators are known.
    """

    recording: Recording
    spans: Sequence[Span]
    batches: Sequence[Batch]
    recorded: Sequence[int]
    cold_ms: float
    stage_ms: Mapping[str, float]
    ops: Operators
    gpu: GpuUse | None
    stack: StackNode | None

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.recording["settings"]

    @cached_property
    def facts(self) -> list[dict[str, Any]]:
        return [worker["facts"] for worker in self.recording["workers"] if worker["facts"]]

    @cached_property
    def total_ms(self) -> float:
        return sum(self.stage_ms.values())

    @property
    def service_ms(self) -> float:
        """How long a request's batch has its worker."""
        return sum(self.stage_ms[stage] for stage in ("ipc", *BATCH_STAGES))

    @property
    def batch_ms(self) -> float:
        return sum(self.stage_ms[stage] for stage in BATCH_STAGES)

    @cached_property
    def rows(self) -> float:
        """Requests in a batch, on average."""
        sizes = [len(batch.spans) for batch in self.batches if batch.spans]
        return fmean(sizes) if sizes else 0.0

    def share(self, ms: float) -> float:
        """This part of a request's time."""
        return ms / self.total_ms if self.total_ms else 0.0

    def gain(self, saved_ms: float) -> float:
        """How many times faster requests get without `saved_ms` of their batch's time (Amdahl's law).

        Time in the queue is the time of other batches: it shrinks with them, in proportion.
        """
        behind = self.stage_ms["queue"] / self.service_ms if self.service_ms else 0.0
        return self.gain_without(saved_ms * (1 + behind))

    def gain_without(self, saved_ms: float) -> float:
        """The same for time that is not a batch's."""
        if saved_ms <= 0 or not self.total_ms:
            return 1.0
        return self.total_ms / max(self.total_ms - saved_ms, self.total_ms / MOST_GAIN)

    def per_request(self, what: str) -> float:
        """Of the bodies' `bytes` or `json_bytes` the mean, 0 when it is not known."""
        bodies = [facts["bodies"] for facts in self.facts if facts.get("bodies")]
        count = sum(each["count"] for each in bodies)
        return sum(each[what] for each in bodies) / count if count else 0.0

    def warm_batch_ms(self) -> float:
        """What a batch takes its worker, usually."""
        return median([_batch_ms(batch) for batch in self.batches]) if self.batches else 0.0

    def fixed_share(self) -> float:
        """The part of a batch's time that does not depend on its size.

        From batches of different sizes (least squares) where there are any, else what is not in operators of some
        length: starting operators costs the same for all sizes.
        """
        fitted = _fixed_share([(len(batch.spans), _batch_ms(batch)) for batch in self.batches if batch.spans])
        return self.ops.outside_share() if fitted is None else fitted

    def room(self) -> float:
        """The part of a busy worker's time in which cores are idle that another worker could use."""
        busy = self.threads() * int(self.settings.get("workers", 1))
        taken = min(1.0, busy / max(1, self.recording["cores"]))
        return 1 - (1 - self.ops.outside_share()) * taken

    @property
    def is_traced(self) -> bool:
        """Whether a worker left a trace; one may have failed, or the handler may have the profiler itself."""
        return any(worker["trace"] for worker in self.recording["workers"])

    @property
    def is_compiled(self) -> bool:
        return any(module.get("compiled") for facts in self.facts for module in facts.get("modules", []))

    def threads(self) -> int:
        """Threads that one worker computes with."""
        return max((facts.get("num_threads", 1) for facts in self.facts), default=1)

    def sets_threads(self) -> bool:
        """Whether the handler chose the number itself, against what its worker was told."""
        share = max(1, self.recording["cores"] // int(self.settings.get("workers", 1)))
        return self.threads() != (self.settings.get("threads_per_worker") or share)

    def busy_workers(self) -> float:
        """How many workers run a batch at once while any does."""
        spans_ns = [(batch.taken_ns, batch.encoded_ns) for batch in self.batches]
        starts, ends = (np.array(column, np.int64) for column in zip(*spans_ns, strict=True))
        covered = covered_ns(starts, ends)
        return max(1.0, float((ends - starts).sum()) / covered) if covered else 1.0

    def matmul_share(self) -> float:
        """The part of inference that multiplies matrices; on a GPU the part of its kernels' time."""
        if self.gpu is not None:
            return self.gpu.matmul_ns / self.gpu.kernel_ns if self.gpu.kernel_ns else 0.0
        return self._part(self.ops.total_ns(self.ops.of(MATMULS, "inference")), "inference")

    def matmul_type(self) -> str:
        """The type of the matrices: as recorded, else that of the model's parameters."""
        declared = [module.get("dtype", "") for facts in self.facts for module in facts.get("modules", [])]
        return self.ops.matmul_type() or (declared[0] if declared else "")

    def top_operator(self) -> tuple[str, float]:
        """The operator that takes most of inference, and which part of it."""
        name, spent_ns = self.ops.top()
        return name, self._part(spent_ns, "inference")

    def operator_share(self, stage: str) -> float:
        """The part of a stage that is inside of operators, or on the way from one to the next."""
        chosen = self.ops.is_outer & self.ops.within(stage)
        return self._part(self.ops.loop_ns(chosen), stage)

    def of_stage(self, part_ns: float, stage: str) -> float:
        """Milliseconds of a request for what takes so long of a recorded batch's stage."""
        return self.stage_ms[stage] * self._part(part_ns, stage)

    def spent_ms(self, chosen: Chosen) -> float:
        """Milliseconds of a request in these operators."""
        return sum(self.of_stage(self.ops.total_ns(chosen & self.ops.within(stage)), stage) for stage in BATCH_STAGES)

    def items_ms(self, stage: str) -> float:
        """Milliseconds of a request in loops that take one number after another out of a tensor."""
        if self.ops.per_batch(self.ops.of(ITEMS, stage)) < ITEM_CALLS:
            return 0.0
        return self.of_stage(self.ops.loop_ns(self.ops.of(ITEMS | PARTS, stage)), stage)

    def copies_ms(self, stage: str | None = None) -> float:
        """Milliseconds of a request in copies that the handler has made."""
        return self.spent_ms(self.copies & self.ops.within(stage))

    @cached_property
    def copies(self) -> Chosen:
        """Copies of some length, without those that a product makes for itself, such as of its bias."""
        return np.asarray(self.ops.of(COPIES) & self.ops.is_long & ~self.ops.below(MATMULS))

    def told_apart_ms(self, stage: str) -> float:
        """What other rules find in a stage."""
        return min(self.stage_ms[stage], self.items_ms(stage) + self.copies_ms(stage))

    def pause_ms(self) -> float:
        """Milliseconds of a request in which inference is outside of operators for longer."""
        whole_ns = self.ops.wall_ns["inference"]
        return self.stage_ms["inference"] * min(1.0, self.ops.pause_ns() / whole_ns) if whole_ns else 0.0

    def launch_ms(self) -> float:
        """Milliseconds of a request for getting the operators of inference going."""
        added_ns = self.ops.profiler_ns("inference")
        whole_ns = self.ops.wall_ns["inference"] - added_ns
        part = max(0.0, self.ops.launch_ns() - added_ns) / whole_ns if whole_ns > 0 else 0.0
        return self.stage_ms["inference"] * min(1.0, part)

    def _part(self, part_ns: float, stage: str) -> float:
        whole_ns = self.ops.calm_ns(stage)
        return min(1.0, part_ns / whole_ns) if whole_ns else 0.0


def measure(timeline: Timeline) -> Measures:
    """Look at a recording once, for all rules."""
    cold = _cold(timeline)
    warm = [i for i, batch in enumerate(timeline.batches) if i not in cold and batch.encoded_ns > batch.taken_ns]
    spans = _warm_spans(timeline, cold, warm)
    recorded = [i for i in warm if timeline.batches[i].is_recorded]
    ops = operators(timeline, recorded)
    return Measures(
        recording=timeline.recording,
        spans=spans,
        batches=[timeline.batches[i] for i in warm],
        recorded=recorded,
        cold_ms=max((_batch_ms(timeline.batches[i]) for i in cold), default=0.0),
        stage_ms=_unprofiled(
            _typical(spans, [timeline.batches[i] for i in warm]), ops, len(recorded) / max(1, len(warm))
        ),
        ops=ops,
        gpu=gpu_use(timeline, recorded),
        stack=stacks.merge(timeline.stacks.values()) if timeline.stacks else None,
    )


def _cold(timeline: Timeline) -> set[int]:
    """The first batch of the life of each worker that was recorded from there on."""
    fresh = {w["index"] for w in timeline.recording["workers"] if w["facts"].get("first_batch")}
    first: dict[int, int] = {}
    for i, batch in enumerate(timeline.batches):
        if batch.worker in fresh and batch.is_recorded:
            first.setdefault(batch.worker, i)
    return set(first.values())


def _warm_spans(timeline: Timeline, cold: set[int], warm: Sequence[int]) -> list[Span]:
    """Requests of warm batches, without those that waited for a cold one if there are others."""
    spans = [timeline.spans[i] for batch in warm for i in timeline.batches[batch].spans]
    ended_ns = max((timeline.batches[i].encoded_ns for i in cold), default=0)
    return [span for span in spans if span["received_ns"] >= ended_ns] or spans


def _typical(spans: Sequence[Span], batches: Sequence[Batch]) -> dict[str, float]:
    """What a request spends in each stage; of batches without known requests, what the worker does."""
    if spans:
        return {stage: midmean(_stage_ms(span, stage) for span in spans) for stage in STAGES}
    marks = [batch.marks() for batch in batches]
    worked = {stage: midmean((mark[i + 1] - mark[i]) / 1e6 for mark in marks) for i, stage in enumerate(BATCH_STAGES)}
    return dict.fromkeys(STAGES, 0.0) | worked


def _unprofiled(stage_ms: Mapping[str, float], ops: Operators, recorded_share: float) -> dict[str, float]:
    """Without what the profiler adds to those batches that it recorded."""
    added = {
        stage: recorded_share * ops.profiler_ns(stage) / wall_ns for stage, wall_ns in ops.wall_ns.items() if wall_ns
    }
    return {stage: ms * (1 - added.get(stage, 0.0)) for stage, ms in stage_ms.items()}


def _stage_ms(span: Span, stage: str) -> float:
    return float(span[f"{stage}_ms"])  # type: ignore[literal-required]


def _batch_ms(batch: Batch) -> float:
    return (batch.encoded_ns - batch.taken_ns) / 1e6


def _fixed_share(sizes_ms: Sequence[tuple[int, float]]) -> float | None:
    """Time at no rows as a part of the mean time; None when sizes are too much alike to tell."""
    if len(sizes_ms) < SIZED_BATCHES:
        return None
    rows, ms = fmean(size for size, _ in sizes_ms), fmean(time for _, time in sizes_ms)
    variance = fmean((size - rows) ** 2 for size, _ in sizes_ms)
    if variance < (SIZE_SPREAD * rows) ** 2 or ms <= 0:
        return None
    slope = fmean((size - rows) * (time - ms) for size, time in sizes_ms) / variance
    return min(1.0, max(0.0, 1 - slope * rows / ms))

"""The operators that workers ran in their main threads, and the time between them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nbserve.trace.flops import flops_by_event, type_of
from nbserve.trace.model import CATEGORIES, Events, Timeline
from nbserve.trace.rules.thresholds import ITEM_LOOP_US, LAUNCH_GAP_US, PROFILER_US_PER_OP, TINY_OP_US

_STAGES = ("preprocess", "inference", "postprocess", "encode")
_INFERENCE = _STAGES.index("inference")
_OP = CATEGORIES.index("op")

MATMULS = frozenset(
    f"{space}::{name}"
    for space in ("aten", "mkldnn", "mkl")
    for name in (
        "linear",
        "matmul",
        "mm",
        "bmm",
        "addmm",
        "addbmm",
        "baddbmm",
        "mv",
        "addmv",
        "dot",
        "einsum",
        "_addmm_activation",
        "_int_mm",
        "_scaled_mm",
        "_mkl_linear",
        "_linear_pointwise",
        "_convolution_pointwise",
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose1d",
        "conv_transpose2d",
        "conv_transpose3d",
        "convolution",
        "_convolution",
        "mkldnn_convolution",
        "cudnn_convolution",
        "slow_conv2d_forward",
        "_slow_conv2d_forward",
        "scaled_dot_product_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_native_multi_head_attention",
        "lstm",
        "gru",
    )
)
COPIES = frozenset(f"aten::{name}" for name in ("copy_", "_to_copy", "to", "clone", "contiguous", "_copy_from"))
ITEMS = frozenset(("aten::item", "aten::_local_scalar_dense", "aten::is_nonzero"))
RANDOM = frozenset(("aten::native_dropout", "aten::bernoulli_", "aten::_fused_dropout"))


@dataclass(frozen=True)
class Operators:
    """Events of warm batches; `stage` is that of each, -1 for what is no operator of theirs in a main thread.

    `wall_ns` is how long the recorded batches were in each stage, `batches` counts them.
    """

    events: Events
    stage: NDArray[np.int8]
    wall_ns: Mapping[str, int]
    batches: int

    def of(self, names: Collection[str], stage: str | None = None) -> NDArray[np.bool_]:
        """The operators of these names that are not called by another of them."""
        wanted = [i for i, name in enumerate(self.events.names) if name in names]
        chosen = np.isin(self.events.name, wanted) & self._in(stage)
        inside = self.events.parent >= 0
        result: NDArray[np.bool_] = chosen & ~(inside & chosen[np.where(inside, self.events.parent, 0)])
        return result

    def total_ns(self, chosen: NDArray[np.bool_]) -> int:
        return int(self.events.duration_ns[chosen].sum())

    def per_batch(self, stage: str) -> float:
        """How many operators a batch has in this stage."""
        return int(self._in(stage).sum()) / self.batches if self.batches else 0.0

    def outer_per_batch(self, stage: str) -> float:
        """The same without those that others call."""
        return int(self._outer(stage).sum()) / self.batches if self.batches else 0.0

    def main_stage(self, chosen: NDArray[np.bool_]) -> str:
        """In which stage most of these operators run."""
        stages = self.stage[chosen]
        return _STAGES[int(np.bincount(stages).argmax())] if len(stages) else "inference"

    def tiny_ns(self) -> int:
        """What operators that are over at once take of inference."""
        ops = self.events.self_ns[self._in("inference")]
        return int(ops[ops < TINY_OP_US * 1e3].sum())

    def mean_self_us(self) -> float:
        ops = self.events.self_ns[self._in("inference")]
        return float(ops.mean() / 1e3) if len(ops) else 0.0

    def gaps_ns(self) -> tuple[int, int]:
        """Inference outside of operators: from one to the next, and in the handler's own Python."""
        outer = self._outer("inference")
        start, end = self.events.start_ns[outer], self.events.start_ns[outer] + self.events.duration_ns[outer]
        gaps = (start[1:] - end[:-1]).clip(min=0)
        same = self.events.batch[outer][1:] == self.events.batch[outer][:-1]
        near = int(gaps[same & (gaps < LAUNCH_GAP_US * 1e3)].sum())
        outside = max(0, self.wall_ns["inference"] - int((end - start).sum()))
        return near, max(0, outside - near)

    def launch_ns(self) -> int:
        """What inference spends on getting operators going, without what the profiler adds."""
        return max(0, self.gaps_ns()[0] + self.tiny_ns() - self.profiler_ns("inference"))

    def profiler_ns(self, stage: str) -> int:
        """What recording the operators of this stage took, about."""
        return int(PROFILER_US_PER_OP * 1e3 * self._in(stage).sum())

    def outside_share(self) -> float:
        """The part of the batches' time that is not in operators of some length; all of it where none were seen."""
        ops = self.events.self_ns[self._in(None)]
        whole = sum(self.wall_ns.values())
        return max(0.0, 1 - int(ops[ops >= TINY_OP_US * 1e3].sum()) / whole) if whole else 1.0

    def loop_ns(self, chosen: NDArray[np.bool_]) -> int:
        """The time of these operators, with the way from one to the next where they follow each other in a loop."""
        start, duration = self.events.start_ns[chosen], self.events.duration_ns[chosen]
        way = start - np.concatenate([start[:1], (start + duration)[:-1]])
        return int((duration + np.where((way > 0) & (way < ITEM_LOOP_US * 1e3), way, 0)).sum())

    def matmul_type(self) -> str:
        """In which type most of the inference's arithmetic is done, "" when the shapes were not recorded."""
        by_type: dict[str, float] = {}
        flops = self._flops
        for i in np.flatnonzero(flops).tolist():
            kind = type_of(self.events.details[self.events.detail[i]])
            by_type[kind] = by_type.get(kind, 0.0) + float(flops[i])
        return max(by_type, key=by_type.__getitem__, default="")

    def gflops(self) -> float:
        """Arithmetic per second while operators that multiply matrices run on the CPU, 0 when it is not known."""
        busy_ns = self.total_ns(self.of(MATMULS, "inference"))
        return float(self._flops.sum()) / busy_ns if busy_ns else 0.0

    def top(self) -> tuple[str, int]:
        """The operator with most self time in inference, and that time."""
        chosen = np.flatnonzero(self._in("inference"))
        if not len(chosen):
            return "", 0
        by_name = np.bincount(self.events.name[chosen], self.events.self_ns[chosen])
        return self.events.names[int(by_name.argmax())], int(by_name.max())

    @cached_property
    def _flops(self) -> NDArray[np.float64]:
        return np.where(self._in("inference"), flops_by_event(self.events), 0.0)

    def _in(self, stage: str | None) -> NDArray[np.bool_]:
        result: NDArray[np.bool_] = self.stage >= 0 if stage is None else self.stage == _STAGES.index(stage)
        return result

    def _outer(self, stage: str) -> NDArray[np.bool_]:
        """Operators that no other one calls."""
        inside = self.events.parent >= 0
        is_op = self.stage >= 0
        result: NDArray[np.bool_] = self._in(stage) & ~(inside & is_op[np.where(inside, self.events.parent, 0)])
        return result


def operators(timeline: Timeline, recorded: Sequence[int]) -> Operators:
    """The operators of these batches."""
    marks = np.array([timeline.batches[i].marks() for i in recorded], np.int64).reshape(-1, 5)
    events = timeline.events
    place = np.full(len(timeline.batches) + 1, -1, np.int64)
    place[list(recorded)] = np.arange(len(recorded))
    row = place[events.batch]
    main = np.array([t.kind == "cpu" and t.pid == t.number for t in timeline.tracks] + [False])
    chosen = np.flatnonzero((row >= 0) & (events.category == _OP) & main[events.track])
    stage = np.full(len(events), -1, np.int8)
    if len(chosen):
        stage[chosen] = (events.start_ns[chosen, None] >= marks[row[chosen]][:, 1:4]).sum(axis=1)
    spent = np.diff(marks, axis=1).sum(axis=0)
    # Batches without operators were not traced, or have none: either way their time says nothing of operators.
    return Operators(events, stage, dict(zip(_STAGES, spent.tolist(), strict=True)), len(recorded))

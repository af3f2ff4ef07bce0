"""The operators that workers ran in their main threads, and the time between them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nbserve.trace.flops import flops_by_event, largest_of, type_of
from nbserve.trace.model import CATEGORIES, Timeline
from nbserve.trace.rules.thresholds import ITEM_LOOP_US, LAUNCH_GAP_US, PROFILER_US_PER_OP, TINY_OP_US
from nbserve.trace.rules.typical import by_group, midmean

STAGES = ("preprocess", "inference", "postprocess", "encode")
_OP = CATEGORIES.index("op")

_PRODUCTS = """
    linear matmul mm bmm addmm addbmm baddbmm mv addmv dot einsum _addmm_activation _int_mm _scaled_mm _mkl_linear
    _linear_pointwise _convolution_pointwise conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d
    convolution _convolution mkldnn_convolution cudnn_convolution slow_conv2d_forward _slow_conv2d_forward
    scaled_dot_product_attention _scaled_dot_product_flash_attention_for_cpu _native_multi_head_attention
    _transformer_encoder_layer_fwd lstm gru
"""
MATMULS = frozenset(f"{space}::{name}" for space in ("aten", "mkldnn", "mkl") for name in _PRODUCTS.split())
COPIES = frozenset(f"aten::{name}" for name in ("copy_", "_to_copy", "to", "clone", "contiguous", "_copy_from"))
ITEMS = frozenset(("aten::item", "aten::_local_scalar_dense", "aten::is_nonzero"))
# What takes a tensor apart into those that an item is asked of.
PARTS = frozenset(("aten::unbind", "aten::select"))
RANDOM = frozenset(("aten::native_dropout", "aten::bernoulli_", "aten::_fused_dropout"))

Chosen = NDArray[np.bool_]


@dataclass(frozen=True)
class Operators:
    """The operators of warm batches; `stage` counts into STAGES.

    `duration_ns` and `self_ns` are typical ones, of operators of the same name and shapes. `is_outer`: no other one
    called it. `wall_ns` is what a batch spends in each stage, recorded; `batches` counts the recorded ones.
    """

    names: Sequence[str]
    details: Sequence[str]
    name: NDArray[np.int32]
    detail: NDArray[np.int32]
    batch: NDArray[np.int32]
    stage: NDArray[np.int8]
    start_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    duration_ns: NDArray[np.float64]
    self_ns: NDArray[np.float64]
    parent: NDArray[np.int64]
    flops: NDArray[np.float64]
    wall_ns: Mapping[str, float]
    batches: int

    def of(self, names: Collection[str], stage: str | None = None) -> Chosen:
        """The operators of these names that are not called by another of them."""
        chosen = np.isin(self.name, [i for i, name in enumerate(self.names) if name in names]) & self.within(stage)
        return np.asarray(chosen & ~np.append(chosen, False)[self.parent])

    def below(self, names: Collection[str]) -> Chosen:
        """The operators that one of these names calls, however far down."""
        is_named = np.isin(self.name, [i for i, name in enumerate(self.names) if name in names])
        found = np.zeros(len(self.name), np.bool_)
        while True:
            grown = np.asarray(np.append(is_named | found, False)[self.parent])
            if (grown == found).all():
                return found
            found = grown

    def within(self, stage: str | None) -> Chosen:
        if stage is None:
            return np.ones(len(self.name), np.bool_)
        return np.asarray(self.stage == STAGES.index(stage))

    @property
    def is_outer(self) -> Chosen:
        return np.asarray(self.parent < 0)

    @property
    def is_long(self) -> Chosen:
        """Operators that do something, as against those whose time is the way to them."""
        return np.asarray(self.duration_ns >= TINY_OP_US * 1e3)

    def per_batch(self, chosen: Chosen) -> float:
        """How many of these a batch has."""
        return int(chosen.sum()) / self.batches if self.batches else 0.0

    def calm_ns(self, stage: str) -> float:
        """What a batch spends in this stage when its operators take as long as they typically do."""
        outer = self.is_outer & self.within(stage)
        if not outer.any():
            return self.wall_ns[stage]
        late = (self.end_ns - self.start_ns - self.duration_ns)[outer]
        by_batch = np.bincount(self.batch[outer], late, minlength=self.batches)
        return max(self.wall_ns[stage] - max(0.0, midmean(by_batch.tolist())), self.total_ns(outer))

    def total_ns(self, chosen: Chosen) -> float:
        """What these take of a batch, with all that they call."""
        return float(self.duration_ns[chosen].sum()) / self.batches if self.batches else 0.0

    def profiler_ns(self, stage: str) -> float:
        """What recording the operators of this stage adds to a batch, about."""
        added_ns = PROFILER_US_PER_OP * 1e3 * self.per_batch(self.within(stage))
        return min(added_ns, self.wall_ns[stage] / 2)

    def main_stage(self, chosen: Chosen) -> str:
        """In which stage most of these operators run."""
        stages = self.stage[chosen]
        return STAGES[int(np.bincount(stages).argmax())] if len(stages) else "inference"

    def mean_self_us(self) -> float:
        spent_ns = self.self_ns[self.within("inference")]
        return float(spent_ns.mean() / 1e3) if len(spent_ns) else 0.0

    def launch_ns(self) -> float:
        """What inference spends on getting operators going, and on those that are over at once; as recorded."""
        spent_ns = self.self_ns[self.within("inference")]
        tiny_ns = float(spent_ns[spent_ns < TINY_OP_US * 1e3].sum())
        return self._ways_ns()[0] + (tiny_ns / self.batches if self.batches else 0.0)

    def pause_ns(self) -> float:
        """What inference is outside of operators for longer than the way from one to the next takes."""
        return self._ways_ns()[1]

    def outside_share(self) -> float:
        """The part of a batch that is not in operators of some length; all of it where there are none."""
        whole = sum(self.wall_ns.values()) * self.batches
        return max(0.0, 1 - float(self.self_ns[self.self_ns >= TINY_OP_US * 1e3].sum()) / whole) if whole else 1.0

    def loop_ns(self, chosen: Chosen) -> float:
        """What these take of a batch, with the way from one to the next where they follow each other in a loop."""
        start, end = self.start_ns[chosen], self.end_ns[chosen]
        way = start - np.concatenate([start[:1], end[:-1]])
        ways_ns = int(way[(way > 0) & (way < ITEM_LOOP_US * 1e3)].sum())
        return self.total_ns(chosen) + (ways_ns / self.batches if self.batches else 0.0)

    def matmul_type(self) -> str:
        """In which type most of inference's arithmetic is done, "" when the shapes were not recorded."""
        by_type: dict[str, float] = {}
        for i in np.flatnonzero(self.flops * self.within("inference")).tolist():
            kind = type_of(self.details[self.detail[i]])
            by_type[kind] = by_type.get(kind, 0.0) + float(self.flops[i])
        return max(by_type, key=by_type.__getitem__, default="")

    def gflops(self) -> float:
        """Arithmetic per second while operators that multiply matrices run, 0 when it is not known."""
        busy_ns = self.total_ns(self.of(MATMULS, "inference")) * self.batches
        return float(self.flops[self.within("inference")].sum()) / busy_ns if busy_ns else 0.0

    def reuse(self) -> float:
        """How many times inference's arithmetic uses each number of its products' largest tensors; 0: not known."""
        counted = self.flops * self.within("inference") > 0
        calls = np.bincount(self.detail[counted], minlength=len(self.details))
        numbers = sum(count * largest_of(self.details[i]) for i, count in enumerate(calls.tolist()) if count)
        return float(self.flops[counted].sum()) / (2 * numbers) if numbers else 0.0

    def mean_matmul_us(self) -> float:
        """How long one product of matrices takes, on average."""
        chosen = self.of(MATMULS, "inference")
        return float(self.duration_ns[chosen].mean() / 1e3) if chosen.any() else 0.0

    def top(self) -> tuple[str, float]:
        """The operator with most self time in inference, and what it takes of a batch."""
        chosen = self.within("inference")
        if not chosen.any():
            return "", 0.0
        by_name = np.bincount(self.name[chosen], self.self_ns[chosen])
        return self.names[int(by_name.argmax())], float(by_name.max()) / self.batches

    def _ways_ns(self) -> tuple[float, float]:
        """A batch's inference outside of operators: from one to the next, and the rest."""
        outer = self.is_outer & self.within("inference")
        start, end, batch = self.start_ns[outer], self.end_ns[outer], self.batch[outer]
        gaps = (start[1:] - end[:-1]).clip(min=0)
        near_ns = int(gaps[(batch[1:] == batch[:-1]) & (gaps < LAUNCH_GAP_US * 1e3)].sum())
        near_ns = near_ns // self.batches if self.batches else 0
        outside_ns = self.wall_ns["inference"] - midmean(np.bincount(batch, end - start)[np.unique(batch)].tolist())
        return near_ns, max(0.0, outside_ns - near_ns)


class _Where:
    """The recorded batches' borders, and to which of their stages a time belongs."""

    def __init__(self, timeline: Timeline, recorded: Sequence[int]) -> None:
        self.marks = np.array([timeline.batches[i].marks() for i in recorded], np.int64).reshape(-1, 5)
        self._row = np.full(len(timeline.batches) + 1, -1, np.int64)
        self._row[list(recorded)] = np.arange(len(recorded))

    def row(self, batch: NDArray[np.int32]) -> NDArray[np.int64]:
        return self._row[batch]

    def stage(self, batch: NDArray[np.int32], time_ns: NDArray[np.int64]) -> NDArray[np.int8]:
        borders = self.marks[self.row(batch)][:, 1:4]
        return np.asarray((time_ns[:, None] >= borders).sum(axis=1), np.int8)

    def wall_ns(self) -> dict[str, float]:
        spent = np.diff(self.marks, axis=1)
        return {stage: midmean(spent[:, i].tolist()) for i, stage in enumerate(STAGES)}


def operators(timeline: Timeline, recorded: Sequence[int]) -> Operators:
    """The operators of these batches."""
    events, where = timeline.events, _Where(timeline, recorded)
    main = np.array([track.kind == "cpu" and track.pid == track.number for track in timeline.tracks] + [False])
    is_op = (where.row(events.batch) >= 0) & (events.category == _OP) & main[events.track]
    ops = events.only(np.flatnonzero(is_op))
    same = np.unique(ops.name.astype(np.int64) * (len(ops.details) + 1) + ops.detail, return_inverse=True)[1].ravel()
    return Operators(
        names=ops.names,
        details=ops.details,
        name=ops.name,
        detail=ops.detail,
        batch=where.row(ops.batch).astype(np.int32),
        stage=where.stage(ops.batch, ops.start_ns),
        start_ns=ops.start_ns,
        end_ns=ops.start_ns + ops.duration_ns,
        duration_ns=by_group(ops.duration_ns, same),
        self_ns=by_group(ops.self_ns, same),
        parent=ops.parent.astype(np.int64),
        flops=flops_by_event(ops),
        wall_ns=where.wall_ns(),
        batches=len(recorded),
    )

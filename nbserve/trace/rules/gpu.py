"""How busy the GPU was while batches ran. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nbserve.trace.model import CATEGORIES, Timeline

_RUNS = np.isin(CATEGORIES, ("kernel", "memcpy", "memset"))
_KERNEL, _MEMCPY = CATEGORIES.index("kernel"), CATEGORIES.index("memcpy")
_MATMUL = re.compile(r"gemm|gemv|cutlass|cublas|xmma|conv|winograd|flash|fmha|nvjet|wgmma|attention", re.IGNORECASE)


@dataclass(frozen=True)
class GpuUse:
    """Nanoseconds over all recorded batches; `wall_ns` is from inference to the end of the batch."""

    wall_ns: int
    busy_ns: int
    kernels: int
    kernel_ns: int
    matmul_ns: int
    copy_ns: int
    batches: int

    @property
    def idle_share(self) -> float:
        return max(0.0, 1 - self.busy_ns / self.wall_ns) if self.wall_ns else 0.0


def gpu_use(timeline: Timeline, recorded: Sequence[int]) -> GpuUse | None:
    """What ran on GPUs for these batches; None when nothing did."""
    events = timeline.events
    chosen = np.flatnonzero(_RUNS[events.category] & np.isin(events.batch, list(recorded)))
    if not len(chosen):
        return None
    duration, category = events.duration_ns[chosen], events.category[chosen]
    matmul = np.array([bool(_MATMUL.search(name)) for name in events.names])[events.name[chosen]]
    windows = [timeline.batches[i] for i in recorded]
    return GpuUse(
        wall_ns=sum(batch.encoded_ns - batch.preprocessed_ns for batch in windows),
        busy_ns=covered_ns(events.start_ns[chosen], events.start_ns[chosen] + duration),
        kernels=int((category == _KERNEL).sum()),
        kernel_ns=int(duration[category == _KERNEL].sum()),
        matmul_ns=int(duration[(category == _KERNEL) & matmul].sum()),
        copy_ns=int(duration[category == _MEMCPY].sum()),
        batches=len(recorded),
    )


def covered_ns(start_ns: NDArray[np.int64], end_ns: NDArray[np.int64]) -> int:
    """How long at least one of these intervals lasts."""
    if not len(start_ns):
        return 0
    ranked = np.argsort(start_ns, kind="stable")
    start, latest = start_ns[ranked], np.maximum.accumulate(end_ns[ranked])
    fresh = np.maximum(start[1:], latest[:-1])
    return int((latest[0] - start[0]) + (latest[1:] - fresh).sum())

"""Which event encloses which, by thread and time. Pure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Nesting(NamedTuple):
    """By event in the given order; `parent` is the position of the innermost event around it, -1 for none."""

    parent: NDArray[np.int32]
    depth: NDArray[np.int16]
    self_ns: NDArray[np.int64]


def order(track: NDArray[np.int16], start_ns: NDArray[np.int64], duration_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions by track, then start, an enclosing event before those in it."""
    return np.lexsort((-duration_ns, start_ns, track))


def nest(track: NDArray[np.int16], start_ns: NDArray[np.int64], duration_ns: NDArray[np.int64]) -> Nesting:
    """How events that are in `order` enclose each other; one that only overlaps another is not inside of it."""
    ends = (start_ns + duration_ns).tolist()
    parents, depths = [-1] * len(ends), [0] * len(ends)
    current = -1
    around: list[int] = []
    for i, (lane, start, end) in enumerate(zip(track.tolist(), start_ns.tolist(), ends, strict=True)):
        if lane != current:
            current, around = lane, []
        while around and (start >= ends[around[-1]] or end > ends[around[-1]]):
            around.pop()
        if around:
            parents[i], depths[i] = around[-1], len(around)
        around.append(i)
    parent = np.array(parents, np.int32)
    return Nesting(parent, np.array(depths).clip(max=32767).astype(np.int16), _self_ns(parent, duration_ns))


def _self_ns(parent: NDArray[np.int32], duration_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Durations without those of the events directly inside."""
    inside = np.zeros(len(parent), np.int64)
    nested = parent >= 0
    # Not bincount: its weights are floats, too coarse for a sum of nanoseconds over hours.
    np.add.at(inside, parent[nested], duration_ns[nested])
    return duration_ns - inside

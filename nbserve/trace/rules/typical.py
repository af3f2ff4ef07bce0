"""Means that a few slow ones do not change: on a busy machine any operator may be kept waiting for its core. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def midmean(values: Iterable[float]) -> float:
    """The mean of the middle half; 0 when there is none."""
    ordered = sorted(values)
    middle = ordered[len(ordered) // 4 : len(ordered) - len(ordered) // 4]
    return sum(middle) / len(middle) if middle else 0.0


def by_group(values: NDArray[np.int64], group: NDArray[np.int64]) -> NDArray[np.float64]:
    """For each value the midmean of its group; groups count from 0."""
    if not len(values):
        return np.zeros(0)
    ordered = np.concatenate([[0], np.cumsum(values[np.lexsort((values, group))])])
    count = np.bincount(group)
    first = np.cumsum(count) - count
    low, high = first + count // 4, first + count - count // 4
    # Numbers that are not used have no values, and count as 0.
    mean = (ordered[high] - ordered[low]) / np.maximum(high - low, 1)
    result: NDArray[np.float64] = mean[group]
    return result

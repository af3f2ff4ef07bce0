"""How sure one can be that one of two things is faster, from pairs of measurements. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Verdict = Literal["faster", "slower", "no gain"]

# Less than this is nothing that a person would change a setting for.
LEAST_GAIN = 1.02
# With fewer pairs all of them would point the same way too often by chance.
LEAST_PAIRS = 6
RESAMPLES = 4_000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """How many times faster, with the interval in which the truth lies with 95 % confidence."""

    speedup: float
    interval: tuple[float, float]
    pairs: int

    @property
    def verdict(self) -> Verdict:
        """A verdict needs enough pairs, and the whole interval beyond LEAST_GAIN."""
        low, high = self.interval
        if self.pairs < LEAST_PAIRS:
            return "no gain"
        if low > LEAST_GAIN:
            return "faster"
        return "slower" if high < 1 / LEAST_GAIN else "no gain"


def estimate(ratios: Sequence[float], seed: int = 0) -> Estimate:
    """The median of these ratios, one of each pair of neighbours in time, and its bootstrap interval.

    Neighbours share the state of the machine, so that a drift cancels out in their ratio; the median lets single
    disturbed blocks pass. With fewer than LEAST_PAIRS the interval is all that was seen.
    """
    found = np.log(np.asarray(ratios, dtype=np.float64))
    if len(found) == 0:
        return Estimate(1.0, (0.0, float("inf")), 0)
    middle = float(np.exp(np.median(found)))
    if len(found) < LEAST_PAIRS:
        return Estimate(middle, (float(np.exp(found.min())), float(np.exp(found.max()))), len(found))
    resampled = np.random.default_rng(seed).choice(found, (RESAMPLES, len(found)))
    low, high = np.quantile(np.median(resampled, axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(middle, (float(np.exp(low)), float(np.exp(high))), len(found))

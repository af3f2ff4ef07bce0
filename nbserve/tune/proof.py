"""The winner against the current settings, in turns, each under its best load: is it better, and how sure is that?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from nbserve.profiling.statistics import LEAST_PAIRS, Estimate, estimate
from nbserve.tune.meter import Meter
from nbserve.tune.points import Goal, Load, Reading

Verdict = Literal["faster", "keeps the goal", "leaner", "no gain", "not proven"]
# The verdicts after which the settings are worth a change.
GAINS: tuple[Verdict, ...] = ("faster", "keeps the goal", "leaner")

MOST_PAIRS = 12
LEAST_BLOCK_S, MOST_BLOCK_S = 0.5, 2.5
REQUESTS = 200
WARM_S = 0.3
# How much throughput fewer workers may cost at most.
AS_GOOD = 0.95
# From so many pairs on, who missed the goal in most of them does not keep it under this load.
ENOUGH_TO_FAIL = 3
# A goal that is missed by less may be missed by chance.
CLEARLY_OVER = 1.1


@dataclass(frozen=True)
class Side:
    """One of the two in the proof: medians of its blocks."""

    load: Load
    throughput: float
    p99_ms: float
    errors: int = 0
    is_behind: bool = False
    readings: Sequence[Reading] = ()

    @classmethod
    def of(cls, load: Load, readings: Sequence[Reading]) -> Side:
        return cls(
            load,
            statistics.median(reading.throughput for reading in readings),
            statistics.median(reading.p99_ms for reading in readings),
            sum(sum(reading.errors.values()) for reading in readings),
            sum(reading.is_behind for reading in readings) > len(readings) / 2,
            readings,
        )

    def keeps(self, goal: Goal, times: float = 1.0) -> bool:
        return not (self.errors or self.is_behind or self.p99_ms > times * goal.p99_ms)


@dataclass(frozen=True)
class Proof:
    """What came of it; `estimate` is how many times more the best settings answer.

    `is_too_much`: under this load the current settings did not keep the goal, so that this is what there is to gain.
    """

    goal: Goal
    best: Side
    current: Side
    estimate: Estimate
    is_leaner: bool = False
    is_too_much: bool = False

    @property
    def speedup(self) -> float:
        return self.estimate.speedup

    @property
    def verdict(self) -> Verdict:
        low, _ = self.estimate.interval
        if not self.best.keeps(self.goal):
            return "no gain"
        if self.estimate.pairs < LEAST_PAIRS:
            return "not proven"
        if self.is_too_much and not self.current.keeps(self.goal, CLEARLY_OVER):
            return "keeps the goal"
        if self.is_too_much and self.current.keeps(self.goal):
            return "no gain"
        if self.estimate.verdict == "faster":
            return "faster"
        return "leaner" if self.is_leaner and low > AS_GOOD else "no gain"


@dataclass(frozen=True)
class Contender:
    """Settings on their meter and a load; where it is too much and there `may_lower` be others, no more is measured."""

    meter: Meter
    load: Load
    throughput: float
    may_lower: bool = False


def prove(best: Contender, current: Contender, goal: Goal, seconds: float, on_pair: Callable[[int], None]) -> Proof:
    """Blocks in turns, A B, B A, ..., for about `seconds`."""
    deadline_s = time.monotonic() + seconds
    for contender in (best, current):
        contender.meter.block(contender.load, WARM_S)
    block_s = _block_s(min(best.throughput, current.throughput), seconds)
    pairs: list[tuple[Reading, Reading]] = []
    while len(pairs) < MOST_PAIRS and (len(pairs) < LEAST_PAIRS or time.monotonic() + 2 * block_s < deadline_s):
        if len(pairs) >= ENOUGH_TO_FAIL and _ends_early(best, current, pairs, goal):
            break
        on_pair(len(pairs) + 1)
        pairs.append(_pair(best, current, block_s, is_best_first=len(pairs) % 2 == 0))
    mine, theirs = zip(*pairs, strict=True)
    ratios = [_ratio(one, other) for one, other in pairs]
    return Proof(goal, Side.of(best.load, mine), Side.of(current.load, theirs), estimate(ratios))


def _ends_early(best: Contender, current: Contender, pairs: Sequence[tuple[Reading, Reading]], goal: Goal) -> bool:
    """Whether one that may have a lower load missed the goal in most blocks."""
    sides = zip((best, current), zip(*pairs, strict=True), strict=True)
    return any(
        one.may_lower and statistics.median_low(reading.p99_ms for reading in readings) > goal.p99_ms
        for one, readings in sides
    )


def _block_s(throughput: float, seconds: float) -> float:
    """Long enough for a 99th percentile, short enough for enough of them."""
    wanted = min(MOST_BLOCK_S, max(LEAST_BLOCK_S, REQUESTS / max(throughput, 1e-9)))
    return min(wanted, max(LEAST_BLOCK_S, seconds / (2 * LEAST_PAIRS)))


def _pair(best: Contender, current: Contender, block_s: float, is_best_first: bool) -> tuple[Reading, Reading]:
    readings = {}
    for contender in (best, current) if is_best_first else (current, best):
        readings[id(contender)] = contender.meter.block(contender.load, block_s)
    return readings[id(best)], readings[id(current)]


def _ratio(best: Reading, current: Reading) -> float:
    """Nothing answered counts as very little: a logarithm is taken of it."""
    return max(best.throughput, 1e-3) / max(current.throughput, 1e-3)

"""What the load generator is asked to do and what it says of it. Pure; the contract of both ends."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypedDict

DRAIN_LIMIT_S = 10.0
MOST_CONNECTIONS = 1_000


@dataclass(frozen=True)
class Job:
    """What to do with `url`: `rate` requests a second, or as many as `clients` that wait for their answers get.

    It ends after `seconds` or `count` requests; the first request is number `first` of those that take turns. With
    `is_poisson` the requests of a rate come by chance, the same in each run. Answers that take longer than `drain_s`
    after the end count as errors at a rate. How far it is will be told every `progress_s`.
    """

    url: str
    seconds: float
    clients: int = 1
    rate: float | None = None
    count: int | None = None
    first: int = 0
    is_poisson: bool = False
    drain_s: float = DRAIN_LIMIT_S
    progress_s: float | None = None

    def numbers(self) -> Iterator[int]:
        end = None if self.count is None else self.first + self.count
        return iter(range(self.first, end)) if end is not None else itertools.count(self.first)

    def due_s(self) -> Iterator[float]:
        """When each request of a rate is due, from the beginning on."""
        assert self.rate is not None
        if not self.is_poisson:
            return (number / self.rate for number in itertools.count())
        rng, rate = random.Random(self.first), self.rate
        return itertools.accumulate((rng.expovariate(rate) for _ in itertools.count()), initial=0.0)


class Progress(TypedDict):
    """What came back until now: `errors` by HTTP status or by what went wrong."""

    requests: int
    errors: dict[str, int]


class Outcome(Progress):
    """What came back: `rate` in good answers per second."""

    seconds: float
    rate: float
    latency_ms: dict[str, float]

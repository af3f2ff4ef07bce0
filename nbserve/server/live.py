"""How an endpoint does now: the numbers of its last two seconds, made twice a second. Pure; server process."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise
from typing import TypedDict

from nbserve.server.metrics import EndpointMetrics
from nbserve.server.spans import STAGES, Kept, SpanStore, Timings

TICK_S = 0.5
WINDOW_S = 2.0
KEPT_S = 120.0

_STAGE_NAMES = [stage.removesuffix("_ms") for stage in STAGES[:-1]]
_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class Sample(TypedDict):
    """What was answered within `window_s`, which is two seconds as soon as somebody has followed for so long.

    `requests` are the answers, `errors` those with a status of 400 or more, `throughput` the others in a second.
    `latency_ms` has p50, p95 and p99 and is None when no worker answered anything; `stages_ms` are means per request.
    """

    time_s: float
    window_s: float
    requests: int
    throughput: float
    errors: int
    latency_ms: dict[str, float] | None
    queued: int
    batches: int
    mean_batch_size: float
    batch_sizes: list[tuple[int, int]]
    stages_ms: dict[str, float]


@dataclass(frozen=True)
class Tick:
    """How far the counters of an endpoint were at a time, and what requests took since the tick before."""

    at_ns: int
    good: int
    errors: int
    batch_sizes: Counter[int]
    timings: Timings

    @property
    def rows(self) -> int:
        return sum(size * count for size, count in self.batch_sizes.items())


class Live:
    """Counts from counters, which miss nothing; times from the requests of which the store still knows.

    It keeps its samples of the last two minutes.
    """

    def __init__(self, spans: SpanStore, metrics: EndpointMetrics) -> None:
        self._spans = spans
        self._metrics = metrics
        self._ticks: deque[Tick] = deque()
        self._samples: deque[Sample] = deque(maxlen=int(KEPT_S / TICK_S))

    @property
    def newest(self) -> Sample:
        return self._samples[-1]

    def before(self) -> list[Sample]:
        """The samples before the newest one, oldest first."""
        since_s = self.newest["time_s"] - KEPT_S
        return [sample for sample in islice(self._samples, len(self._samples) - 1) if sample["time_s"] >= since_s]

    def begin(self, now_ns: int) -> None:
        """Nobody counted until now: the ticks before are what the counters were before the requests that are kept."""
        self._ticks = deque()
        for back in range(round(WINDOW_S / TICK_S), 0, -1):
            kept = self._spans.kept(now_ns - int(back * TICK_S * 1e9))
            # Where older requests were dropped, the count begins later.
            if not self._ticks or kept.since_ns > self._ticks[-1].at_ns:
                self._ticks.append(self._tick_before(kept))

    def sample(self, now_ns: int, time_s: float, queued: int) -> Sample:
        """The numbers now; `time_s` is when that is for people."""
        self._ticks.append(self._tick(now_ns, self._ticks[-1].at_ns))
        # A tick may be a little late; after one that was very late the window is rather too long than too short.
        begins_ns = now_ns - int((WINDOW_S - TICK_S / 2) * 1e9)
        while self._ticks[1].at_ns <= begins_ns:
            self._ticks.popleft()
        self._samples.append(_sample(list(self._ticks), time_s, queued))
        return self.newest

    def _tick_before(self, kept: Kept) -> Tick:
        at_ns = kept.since_ns
        now = self._tick(at_ns, self._ticks[-1].at_ns if self._ticks else at_ns)
        sizes = now.batch_sizes.copy()
        sizes.subtract(kept.batch_sizes)
        rows = sum(size * count for size, count in kept.batch_sizes.items())
        return Tick(at_ns, now.good - (rows - kept.failed), now.errors - kept.failed, sizes, now.timings)

    def _tick(self, now_ns: int, since_ns: int) -> Tick:
        statuses = self._metrics.statuses
        errors = sum(count for status, count in statuses.items() if status >= 400)
        return Tick(
            at_ns=now_ns,
            good=statuses.total() - errors,
            errors=errors,
            batch_sizes=self._metrics.batch_sizes.copy(),
            timings=self._spans.timings(since_ns, now_ns),
        )


def _sample(ticks: Sequence[Tick], time_s: float, queued: int) -> Sample:
    first, last = ticks[0], ticks[-1]
    window_s = max(1e-3, (last.at_ns - first.at_ns) / 1e9)
    good, errors = last.good - first.good, last.errors - first.errors
    sizes = last.batch_sizes - first.batch_sizes
    weighted = [(now.rows - before.rows, now.timings) for before, now in pairwise(ticks)]
    return Sample(
        time_s=round(time_s, 3),
        window_s=round(window_s, 3),
        requests=good + errors,
        throughput=round(good / window_s, 3),
        errors=errors,
        latency_ms=_latency_ms(weighted),
        queued=queued,
        batches=sizes.total(),
        mean_batch_size=round((last.rows - first.rows) / max(1, sizes.total()), 3),
        batch_sizes=sorted(sizes.items()),
        stages_ms=_stages_ms(weighted),
    )


def _latency_ms(weighted: Sequence[tuple[int, Timings]]) -> dict[str, float] | None:
    """Each tick counts as much as it answered requests, however many of them it knows."""
    known = [(rows / len(timings.latencies_ms), timings) for rows, timings in weighted if timings.latencies_ms]
    ordered = sorted((latency_ms, weight) for weight, timings in known for latency_ms in timings.latencies_ms)
    if not ordered:
        return None
    reached = list(accumulate(weight for _, weight in ordered))
    return {name: round(ordered[_place(reached, share)][0], 3) for name, share in _SHARES.items()}


def _place(reached: Sequence[float], share: float) -> int:
    return min(len(reached) - 1, bisect_left(reached, share * reached[-1]))


def _stages_ms(weighted: Sequence[tuple[int, Timings]]) -> dict[str, float]:
    known = [(rows, timings.stages_ms) for rows, timings in weighted if timings.stages_ms]
    total = max(1, sum(rows for rows, _ in known))
    return dict(zip(_STAGE_NAMES, _weighted_means(known, total), strict=True))


def _weighted_means(known: Sequence[tuple[int, list[float]]], total: int) -> Iterator[float]:
    for stage in range(len(_STAGE_NAMES)):
        yield round(sum(rows * stages_ms[stage] for rows, stages_ms in known) / total, 4)

"""Which connections come back after an answer, how soon, and how long to wait for them. Pure; server process."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from itertools import accumulate
from typing import NamedTuple

from nbserve.server.service_times import ServiceLine

_QUICKLY, _SLOWLY = (
    0.3,
    0.7,
)  # a share moves 30 % of the way to 1 after a quick return, and to 70 % of itself after a slow one
_COMES_BACK = 0.5
_REMEMBERED = 8192  # connections per generation: two generations are kept
_GENERATION_NS = 30_000_000_000
_PLAN_EVERY = 16  # batches, once there have been some plans
_FEWEST_SAMPLES = 20
_MOST_SAMPLES = 512
_EVERYBODY = 0.998  # of those who come back at all
_WORTH_WAITING = 1.03  # times the throughput without a wait
_PATIENCE = 0.97  # of the best throughput is enough if it leaves nobody behind


class ReturnTimes:
    """Histogram of the time from an answer to the same connection's next request; old samples fade."""

    def __init__(self) -> None:
        self.counts = [0] * 256
        self.total = 0

    def add(self, took_ns: list[int]) -> None:
        counts = self.counts
        for took in took_ns:
            took |= 8
            bits = took.bit_length()
            counts[bits << 2 | (took >> bits - 3 & 3)] += 1
        self._count(len(took_ns))

    def add_never(self, missing: int) -> None:
        """These did not come back in any time that matters."""
        self._count(missing)

    def shares(self, up_to_ns: float) -> list[tuple[int, float]]:
        """(time in ns, share of returns up to that time) for the end of each bucket in use, up to `up_to_ns`."""
        sums = accumulate(self.counts)
        ends = ((bucket_end_ns(i), came) for i, (n, came) in enumerate(zip(self.counts, sums, strict=True)) if n)
        return [(end_ns, came / self.total) for end_ns, came in ends if end_ns <= up_to_ns * 1.25]

    def _count(self, samples: int) -> None:
        self.total += samples
        if self.total > _MOST_SAMPLES:
            never = (self.total - sum(self.counts)) // 2
            self.counts = [n // 2 for n in self.counts]
            self.total = sum(self.counts) + never


def bucket_end_ns(index: int) -> int:
    bits, quarter = index >> 2, index & 3
    return (5 + quarter) << bits - 3


class _Visitor:
    """A connection that was answered before."""

    __slots__ = ("answered_ns", "group", "share")

    def __init__(self) -> None:
        self.share = 0.0
        self.answered_ns = 0
        self.group: _Group | None = None


class _Group:
    """The connections of one answered batch that are known to come back."""

    __slots__ = ("closes_ns", "deadline_ns", "missing")

    def __init__(self, deadline_ns: int, closes_ns: int) -> None:
        self.missing = 0
        self.deadline_ns = deadline_ns
        self.closes_ns = closes_ns


class Returns:
    """Learns who comes back and says for how many it pays to wait, and until when.

    A wait can never save more than the fixed cost of the batch it avoids, so that cost is the horizon: who usually
    takes longer does not count as coming back. Memory is bounded by two generations of connections.
    """

    def __init__(self) -> None:
        self.wait_ns = 0
        self._young: dict[Hashable, _Visitor] = {}
        self._old: dict[Hashable, _Visitor] = {}
        self._born_ns = 0
        self._groups: deque[_Group] = deque()
        self._times = ReturnTimes()
        self._took_ns: list[int] = []
        self._horizon_ns = 0
        self._regulars = 0.0
        self._strangers = 0.0
        self._until_plan = 0
        self._plans = 0

    def arrived(self, source: Hashable, now_ns: int) -> None:
        visitor = self._young.get(source) or self._old.get(source)
        if visitor is None or not visitor.answered_ns:
            return
        took_ns = now_ns - visitor.answered_ns
        visitor.answered_ns = 0
        share, is_quick = visitor.share, took_ns <= self._horizon_ns
        visitor.share = share + _QUICKLY * (1 - share) if is_quick else share * _SLOWLY
        group = visitor.group
        if group is not None:
            visitor.group = None
            group.missing -= 1
            if is_quick:
                self._took_ns.append(took_ns)

    def answered(self, sources: Iterable[Hashable], waiting: float, now_ns: int, line: ServiceLine, most: int) -> int:
        """A batch of these connections was answered while `waiting` others waited; gives how many are regulars."""
        self._horizon_ns = int(line.fixed_ns)
        self._times.add(self._took_ns)
        self._took_ns.clear()
        self._close_groups(now_ns)
        group = _Group(now_ns + self.wait_ns, now_ns + self._horizon_ns)
        rows = self._expect(sources, group, now_ns)
        if group.missing:
            self._groups.append(group)
        self._plan(group.missing, rows, waiting, line, most)
        if now_ns - self._born_ns > _GENERATION_NS or len(self._young) > _REMEMBERED:
            self._old, self._young, self._born_ns = self._young, {}, now_ns
        return group.missing

    def missing(self, now_ns: int) -> tuple[int, int]:
        """How many are still worth waiting for, and when (ns) the first of them stop being so."""
        count, until_ns = 0, 0
        for group in self._groups:
            if group.missing and group.deadline_ns > now_ns:
                count += group.missing
                until_ns = min(until_ns or group.deadline_ns, group.deadline_ns)
        return count, until_ns

    def left(self, source: Hashable) -> None:
        """The connection was closed: nobody needs to wait for it."""
        visitor = self._young.pop(source, None) or self._old.pop(source, None)
        if visitor is not None and visitor.group is not None:
            visitor.group.missing -= 1

    def _expect(self, sources: Iterable[Hashable], group: _Group, now_ns: int) -> int:
        rows, young = 0, self._young
        for source in sources:
            rows += 1
            visitor = young.get(source)
            if visitor is None:
                if source is None:
                    continue
                visitor = young[source] = self._recall(source)
            if visitor.share > _COMES_BACK and visitor.group is None:
                visitor.group = group
                group.missing += 1
            visitor.answered_ns = now_ns
        return rows

    def _recall(self, source: Hashable) -> _Visitor:
        known = self._old.pop(source, None)
        return _Visitor() if known is None else known

    def _close_groups(self, now_ns: int) -> None:
        while self._groups and (self._groups[0].closes_ns <= now_ns or not self._groups[0].missing):
            self._times.add_never(self._groups.popleft().missing)

    def _plan(self, regulars: int, rows: int, waiting: float, line: ServiceLine, most: int) -> None:
        regular_share = regulars / rows
        self._regulars += 0.2 * (regulars + waiting * regular_share - self._regulars)
        self._strangers += 0.2 * (waiting * (1 - regular_share) - self._strangers)
        self._until_plan -= 1
        if self._until_plan > 0 or not regulars or self._times.total < _FEWEST_SAMPLES:
            return
        self._plans += 1
        self._until_plan = min(self._plans, _PLAN_EVERY)
        traffic = _Traffic(self._times.shares(self._horizon_ns), self._regulars, self._strangers, line, most)
        self.wait_ns = traffic.best_wait_ns()


class _Traffic(NamedTuple):
    """What decides how long to wait after a batch; `shares` says how many return by when."""

    shares: list[tuple[int, float]]
    regulars: float
    strangers: float
    line: ServiceLine
    most: int

    def best_wait_ns(self) -> int:
        """The wait with the highest throughput, or a longer one that catches practically everybody and costs little.

        Who is left behind waits through a whole batch, so leaving a few behind doubles the slowest answers.
        """
        best_ns, best_rate = 0, _WORTH_WAITING * self._rate(0, 0.0)
        everybody = _EVERYBODY * self.shares[-1][1] if self.shares else 0
        for end_ns, came in self.shares:
            rate = self._rate(end_ns, came)
            if rate > best_rate or (came >= everybody and best_ns and rate >= _PATIENCE * best_rate):
                best_ns, best_rate = end_ns, max(rate, best_rate)
            if came >= everybody:
                break
        return best_ns

    def _rate(self, wait_ns: int, came: float) -> float:
        """Rows per ns in the steady state of waiting up to `wait_ns`, by when the share `came` has returned.

        Who is not back in time makes the next batch: of c regulars a batch then holds c / (2 - came).
        """
        aboard = self.regulars / (2 - came)
        rows = min(self.most, self.strangers + aboard)
        needed = min(self.most, self.strangers + self.regulars) - (self.strangers + self.regulars - aboard)
        wait_ns = min(wait_ns, self._time_of(needed, aboard)) if needed > 0 else 0
        return rows / (wait_ns + self.line.at(rows))

    def _time_of(self, nth: float, among: float) -> int:
        """When the nth of `among` returns is to be expected (the median rank)."""
        rank = (nth - 0.3) / (among + 0.4)
        return next((end_ns for end_ns, came in self.shares if came >= rank), 1 << 62)

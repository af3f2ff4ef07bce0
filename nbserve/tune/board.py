"""All that was measured so far, and what it says of each settings. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from nbserve.tune.points import Ask, Goal, Load, Point, Reading, Settings

# Loads are chosen a little below the goal, as the next measurement may be a little above the last.
AIM = 0.95


class Board:
    """Points in the order in which they were tried first."""

    def __init__(self, goal: Goal) -> None:
        self.goal = goal
        self.spent_s = 0.0
        self._points: dict[tuple[Settings, Load], Point] = {}

    @property
    def points(self) -> list[Point]:
        return list(self._points.values())

    def add(self, ask: Ask, reading: Reading) -> Point:
        point = self._points.setdefault((ask.settings, ask.load), Point(ask.settings, ask.load))
        point.readings.append(reading)
        self.spent_s += reading.spent_s
        return point

    def find(self, settings: Settings, load: Load) -> Point | None:
        return self._points.get((settings, load))

    def of(self, settings: Settings) -> list[Point]:
        return [point for point in self._points.values() if point.settings == settings]

    def keeps(self, point: Point) -> bool:
        return point.keeps(self.goal.p99_ms * AIM)

    def best(self, settings: Settings) -> Point | None:
        """The most that these settings do within the goal; None when they never keep it."""
        return _most(filter(self.keeps, self.of(settings)))

    def best_within(self, settings: Settings) -> Point | None:
        """The same up to the goal itself: what is to be beaten must not be held below it."""
        return _most(point for point in self.of(settings) if point.keeps(self.goal.p99_ms))

    def best_of_all(self) -> Point | None:
        return _most(filter(self.keeps, self.points))

    def nearest(self, settings: Settings) -> Point | None:
        """The least latency that these settings were seen with; None when they answered nothing well."""
        answered = [point for point in self.of(settings) if not point.errors and math.isfinite(point.p99_ms)]
        return min(answered, key=lambda point: point.p99_ms, default=None)

    def most_load(self, settings: Settings) -> float:
        return max((point.load.size for point in self.of(settings)), default=0.0)


def _most(points: Iterable[Point]) -> Point | None:
    return max(points, key=lambda point: point.throughput, default=None)


def frontier(points: list[Point]) -> list[Point]:
    """Those that no other beats in both: less latency has less throughput. In the order of their latency."""
    return list(_frontier(sorted((p for p in points if not p.errors), key=lambda p: (p.p99_ms, -p.throughput))))


def _frontier(ordered: list[Point]) -> Iterator[Point]:
    most = 0.0
    for point in ordered:
        if point.throughput > most:
            most = point.throughput
            yield point

"""The frontier as a drawing: where each tried point lies, throughput over latency. Pure geometry, drawn elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from nbserve.trace.pen import tick_step
from nbserve.tune.board import frontier
from nbserve.tune.points import Point
from nbserve.tune.state import State
from nbserve.tune.summary import milliseconds, rate

# What a dot is: the best, the settings before, within the goal, or past it.
Kind = Literal["best", "before", "kept", "late"]

BEST, BEFORE = "#2e9d5b", "#e0861a"
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 58, 18, 22, 38
LABEL_PX = 60
# Latencies that are shown, as shares of the goal, at least and at most.
LOW, HIGH = 0.3, 1.8
LOWEST, HIGHEST = 0.005, 12.0
_TICKS = (1, 2, 5)


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    kind: Kind
    title: str

    @property
    def label(self) -> str:
        """What stands beside it."""
        return self.kind if self.kind in ("best", "before") else ""

    @property
    def label_is_right(self) -> bool:
        """To the left it would stand on the axis."""
        return self.x < LEFT_PX + LABEL_PX


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Plot:
    """Pixels from the upper left corner; dots in the order in which they are drawn. `late_x` is where the goal is."""

    width: int
    height: int
    late_x: float
    goal: str
    dots: Sequence[Dot]
    frontier: Sequence[tuple[float, float]]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]

    @property
    def bottom(self) -> int:
        return self.height - BOTTOM_PX

    @property
    def right(self) -> int:
        return self.width - RIGHT_PX


def plot(state: State, width: int, height: int) -> Plot:
    points = [point for point in state.points if not point.errors and math.isfinite(point.p99_ms)]
    scale = Scale.of(state, points, width, height)
    return Plot(
        width=width,
        height=height,
        late_x=scale.x(state.goal.p99_ms),
        goal=f"goal {milliseconds(state.goal.p99_ms)}",
        dots=list(_dots(state, points, scale)),
        frontier=[(scale.x(point.p99_ms), scale.y(point.throughput)) for point in frontier(points)],
        x_ticks=[Tick(scale.x(ms), milliseconds(ms)) for ms in _powers(scale.low_ms, scale.high_ms)],
        y_ticks=[Tick(scale.y(value), f"{value:,.9g}") for value in _steps(scale.most)],
    )


@dataclass(frozen=True)
class Scale:
    """Latency to the right, by its logarithm; throughput upwards."""

    low_ms: float
    high_ms: float
    most: float
    width: int
    height: int

    @classmethod
    def of(cls, state: State, points: Sequence[Point], width: int, height: int) -> Scale:
        goal_ms, found = state.goal.p99_ms, [point.p99_ms for point in points]
        low_ms = max(LOWEST * goal_ms, min([LOW * goal_ms, *(ms / 1.25 for ms in found)]))
        high_ms = min(HIGHEST * goal_ms, max([HIGH * goal_ms, *(ms * 1.25 for ms in found)]))
        most = max((point.throughput for point in points), default=1.0)
        return cls(low_ms, high_ms, 1.12 * max(most, 1e-9), width, height)

    def x(self, ms: float) -> float:
        within = min(self.high_ms, max(self.low_ms, ms))
        share = math.log(within / self.low_ms) / math.log(self.high_ms / self.low_ms)
        return LEFT_PX + share * (self.width - LEFT_PX - RIGHT_PX)

    def y(self, throughput: float) -> float:
        return self.height - BOTTOM_PX - throughput / self.most * (self.height - TOP_PX - BOTTOM_PX)


def _dots(state: State, points: Sequence[Point], scale: Scale) -> Iterator[Dot]:
    """The ones that matter last, so that they lie above the others."""
    best, before = state.best_point, state.current_point
    marked = {id(point) for point in (best, before)}
    for point in points:
        if id(point) not in marked:
            kind: Kind = "kept" if state.board.keeps(point) else "late"
            yield _dot(point, kind, scale)
    if before is not None and before is not best:
        yield _dot(before, "before", scale)
    if best is not None:
        yield _dot(best, "best", scale)


def _dot(point: Point, kind: Kind, scale: Scale) -> Dot:
    title = (
        f"{rate(point.throughput)} requests/s, p99 {milliseconds(point.p99_ms)}\n"
        f"{point.settings.words()}\n{point.load.words()}"
    )
    return Dot(scale.x(point.p99_ms), scale.y(point.throughput), kind, title)


def _powers(low: float, high: float) -> Iterator[float]:
    """1, 2, 5, 10, ...; only the powers of ten where there are many."""
    factors = _TICKS if high / low < 150 else (1,)
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        for factor in factors:
            if low <= factor * 10.0**power <= high:
                yield factor * 10.0**power


def _steps(most: float) -> Iterator[float]:
    step = tick_step(most / 5)
    value = 0.0
    while value <= most:
        yield value
        value += step

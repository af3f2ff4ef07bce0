"""Charts of a still picture: lines over the last two minutes, and bars of batch sizes. Pure; runs in the kernel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nbserve.notebook.live import figure
from nbserve.notebook.sheet import Pen, Point
from nbserve.trace.pen import ACCENT, LINE, MUTED, tick_step

SPAN_S = 120.0
# Nobody watched in between when samples lie further apart.
_GAP_S = 3.0
_FILL = "#e3ecfb"
_LABEL_PX = 13
_MOST_BARS = 16
_WIDEST_PX = 28
_LABEL_SIZE = 9


@dataclass(frozen=True)
class Box:
    """A place on a strip."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top


@dataclass(frozen=True)
class Line:
    """Values over time; None is a time without one."""

    values: Sequence[tuple[float, float | None]]
    colour: str
    is_filled: bool = False


def lines(pen: Pen, box: Box, drawn: Sequence[Line], end_s: float, least: float) -> None:
    """Lines over the two minutes before `end_s`; the scale goes up to `least` at least."""
    plot = Box(box.left, box.top, box.right, box.bottom - _LABEL_PX)
    highest = max([least, *(value for line in drawn for _, value in line.values if value is not None)])
    step = tick_step(highest / 2.2)
    top = math.ceil(highest / step - 1e-9) * step
    for line in drawn:
        if line.is_filled:
            for part in _parts(line, plot, end_s, top):
                pen.area([(part[0][0], plot.bottom), *part, (part[-1][0], plot.bottom)], _FILL)
    _grid(pen, plot, top, step)
    for line in drawn:
        for part in _parts(line, plot, end_s, top):
            _stroke(pen, part, line.colour)
    _times(pen, plot)


def _parts(line: Line, plot: Box, end_s: float, top: float) -> Iterator[list[Point]]:
    """The pieces of a line between its gaps, as points."""
    part: list[Point] = []
    before_s = -math.inf
    for time_s, value in line.values:
        if part and (value is None or time_s - before_s > _GAP_S):
            yield part
            part = []
        if value is not None and time_s >= end_s - SPAN_S:
            x = plot.right - (end_s - time_s) / SPAN_S * plot.width
            part.append((x, plot.bottom - value / top * plot.height))
        before_s = time_s
    if part:
        yield part


def _stroke(pen: Pen, points: Sequence[Point], colour: str) -> None:
    if len(points) == 1:
        pen.dot(*points[0], 1.2, colour)
    else:
        pen.line(points, colour, 1.5)


def _grid(pen: Pen, plot: Box, top: float, step: float) -> None:
    for number in range(round(top / step) + 1):
        y = plot.bottom - number * step / top * plot.height
        pen.line([(plot.left, y), (plot.right, y)], LINE, 0.75)
        if number:
            pen.text(plot.left, y + 10, figure(number * step), MUTED, _LABEL_SIZE)


def _times(pen: Pen, plot: Box) -> None:
    y = plot.bottom + 11
    pen.text(plot.left, y, "2 min ago", MUTED, _LABEL_SIZE)
    pen.text(plot.left + plot.width / 2, y, "1 min", MUTED, _LABEL_SIZE, anchor="ms")
    pen.text(plot.right, y, "now", MUTED, _LABEL_SIZE, anchor="rs")


def histogram(pen: Pen, box: Box, sizes: Sequence[tuple[int, int]], most: int) -> None:
    """How often batches had which size; `most` is the largest size that there can be."""
    plot = Box(box.left, box.top, box.right, box.bottom - _LABEL_PX)
    bars = binned(sizes, max([most, *(size for size, _ in sizes)]))
    pen.line([(plot.left, plot.bottom), (plot.right, plot.bottom)], LINE, 0.75)
    highest = max(1, *(bar.times for bar in bars))
    width = plot.width / len(bars)
    labels = [pen.length(bar.label, _LABEL_SIZE) for bar in bars]
    every = math.ceil((max(labels) + 4) / width)
    for i, bar in enumerate(bars):
        left, right = plot.left + i * width, plot.left + (i + 1) * width - 2
        if bar.times:
            height = max(1.5, plot.height * bar.times / highest)
            pen.box(left, plot.bottom - height, min(right, left + _WIDEST_PX), plot.bottom, ACCENT, 1)
        # Counted from the last one, which has its label in any case: it is the setting.
        if (len(bars) - 1 - i) % every == 0:
            middle = min(left + min(width - 2, _WIDEST_PX) / 2, box.right - labels[i] / 2)
            pen.text(middle, plot.bottom + 11, bar.label, MUTED, _LABEL_SIZE, anchor="ms")


class Bar(NamedTuple):
    """How many batches had from `first` to `last` requests."""

    first: int
    last: int
    times: int

    @property
    def label(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def binned(sizes: Sequence[tuple[int, int]], most: int) -> list[Bar]:
    """As many bars as can be told apart, for the sizes from 1 to `most`."""
    each = math.ceil(most / _MOST_BARS)
    counts = [0] * math.ceil(most / each)
    for size, count in sizes:
        counts[(size - 1) // each] += count
    return [Bar(i * each + 1, min(most, (i + 1) * each), count) for i, count in enumerate(counts)]

"""How far an auto-tune is: what pictures and lines of progress are made of. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nbserve.tune.board import Board
from nbserve.tune.points import Goal, Point, Settings


@dataclass(frozen=True)
class State:
    """What was measured so far; `best` leads at the moment. `spent_s` of `seconds` have passed, `what` is going on."""

    name: str
    board: Board
    current: Settings
    best: Settings
    what: str = ""
    spent_s: float = 0.0
    seconds: float = 0.0
    proven: Point | None = None

    @property
    def goal(self) -> Goal:
        return self.board.goal

    @property
    def points(self) -> list[Point]:
        return self.board.points

    @property
    def best_point(self) -> Point | None:
        """Under the load that was proven, if one was."""
        return self.proven or self.board.best(self.best)

    @property
    def current_point(self) -> Point | None:
        """Its best within the goal, or what came nearest."""
        return self.board.best_within(self.current) or self.board.nearest(self.current)

    @property
    def share(self) -> float:
        """Of the time."""
        return min(1.0, self.spent_s / self.seconds) if self.seconds else 1.0

    @property
    def tried(self) -> int:
        """How many settings."""
        return len({point.settings for point in self.points})

    @property
    def measured(self) -> int:
        return sum(len(point.readings) for point in self.points)


OnState = Callable[[State], None]


def best_of_each(board: Board) -> list[Point]:
    """The best of each settings that keep the goal, most throughput first."""
    settings = dict.fromkeys(point.settings for point in board.points)
    found = filter(None, map(board.best, settings))
    return sorted(found, key=lambda point: -point.throughput)

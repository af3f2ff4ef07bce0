"""Which settings to measure next, under which load. Pure: no clock, no I/O; it is told what was measured.

Each settings are judged by the most they do within the goal: the load goes up until latency passes the goal or
throughput stays flat. From the best settings so far one coordinate after the other is changed, as long as that helps.
"""

from __future__ import annotations

from collections.abc import Generator

from nbserve.tune.board import Board
from nbserve.tune.points import Ask, Load, Point, Reading, Settings
from nbserve.tune.space import COORDINATES, Coordinate, Space, highest

Asks = Generator[Ask, Reading, None]
Measured = Generator[Ask, Reading, Point]
Decided = Generator[Ask, Reading, bool]

# A load that brings less than this brings nothing.
FLAT = 1.03
# Less than this is no reason to change a setting; a window that waits costs those who come alone.
LEAST_GAIN, LEAST_GAIN_OF_A_WINDOW = 1.03, 1.05
# As good as the best, where it takes fewer workers or threads.
AS_GOOD = 0.97
# Nothing that a repetition would turn round.
CLEARLY_MORE, CLEARLY_LESS = 1.15, 0.93
MOST_READINGS = 3
# How much less latency counts, where nothing keeps the goal.
NEARER = 0.9
# Rungs of the ladder of loads: of the first ramp, and of later ones, which begin near the best.
FIRST_STRIDE, STRIDE = 4, 2
REQUESTS = 200
LEAST_S, MOST_S = 0.6, 2.5
WARM_SHARE = 0.4
# With less time than that, measurements are shorter, but not by more than that.
USUAL_BUDGET_S, LEAST_SHORTENED = 60.0, 0.25


class _OutOfTime(Exception):
    """The time is up."""


class Search:
    """Drive it as a generator: it yields an Ask and is sent the Reading. `is_clear` when nothing is left to try."""

    def __init__(self, space: Space, board: Board, current: Settings, budget_s: float) -> None:
        self.leader = current
        self.is_clear = False
        self._space = space
        self._board = board
        self._budget_s = budget_s
        self._loads = space.loads()
        self._tried = {current}
        self._peak = 0.0
        self._why = "the current settings"

    def asks(self) -> Asks:
        try:
            yield from self._ramp(self.leader, 0, FIRST_STRIDE, 0.0)
            self._crown(self.leader)
            self._why = "well-known settings"
            for settings in self._space.seeds():
                yield from self._challenge(settings)
            yield from self._climb()
            self.is_clear = True
        except _OutOfTime:
            return

    def _climb(self) -> Asks:
        has_moved = True
        while has_moved:
            has_moved = False
            for coordinate in COORDINATES:
                self._why = coordinate
                while (yield from self._step(coordinate)):
                    has_moved = True

    def _step(self, coordinate: Coordinate) -> Decided:
        """Go on from the leader along one line, up or down; whether another leads now."""
        line = self._space.line(coordinate, self.leader)
        own = line.index(self.leader)
        for step in (2, 1, -2, -1):
            if 0 <= own + step < len(line) and (yield from self._challenge(line[own + step])):
                return True
        return False

    def _challenge(self, candidate: Settings) -> Decided:
        """Whether the candidate is better than the leader, and leads now."""
        if candidate in self._tried or self._is_moot(candidate):
            return False
        self._tried.add(candidate)
        champion = self._board.best(self.leader)
        if champion is None:
            won = yield from self._challenge_in_need(candidate)
        else:
            rung = self._start(candidate, champion)
            yield from self._ramp(candidate, rung, STRIDE, champion.throughput * self._margin(candidate, CLEARLY_LESS))
            won = yield from self._wins(candidate)
        if won:
            self._crown(candidate)
        return won

    def _challenge_in_need(self, candidate: Settings) -> Decided:
        """Nothing keeps the goal yet: what comes nearer is better."""
        yield from self._ramp(candidate, 0, STRIDE, 0.0)
        nearest, leading = self._board.nearest(candidate), self._board.nearest(self.leader)
        if self._board.best(candidate) is not None or leading is None:
            return nearest is not None
        return nearest is not None and nearest.p99_ms < NEARER * leading.p99_ms

    def _crown(self, settings: Settings) -> None:
        self.leader = settings
        best = self._board.best(settings)
        self._peak = max(self._peak, best.throughput if best else 0.0)

    def _is_moot(self, candidate: Settings) -> bool:
        """Whether it would do just what the leader does: no batch was ever as large as either lets it be."""
        if self.leader.policy == "window" or candidate.policy == "window" or self._space.goal.rate is not None:
            return False
        most = self._board.most_load(self.leader)
        same_workers = candidate.workers == self.leader.workers
        same_threads = candidate.threads(self._space.cores) == self.leader.threads(self._space.cores)
        is_bound = most > candidate.workers * min(candidate.max_batch_size, self.leader.max_batch_size)
        return same_workers and same_threads and not is_bound

    def _start(self, candidate: Settings, champion: Point) -> int:
        """The rung to begin with: the champion's, or as many clients for each worker as there."""
        size = champion.load.size
        if self._space.goal.rate is None:
            size *= candidate.workers / self.leader.workers
        return highest(self._loads, size)

    def _ramp(self, settings: Settings, rung: int, stride: int, to_beat: float) -> Asks:
        """Find the load under which these settings do best; give up when they do not get beyond `to_beat`."""
        point = yield from self._measure(settings, rung)
        while rung > 0 and not self._board.keeps(point):
            if point.throughput <= to_beat:
                return  # Fewer clients do not get more.
            rung = max(0, rung - stride)
            point = yield from self._measure(settings, rung)
        if self._board.keeps(point):
            yield from self._ascend(settings, rung, stride, point)

    def _ascend(self, settings: Settings, low: int, stride: int, point: Point) -> Asks:
        """From a load that keeps the goal to the highest that does and brings more."""
        top = len(self._loads) - 1
        high = low
        while high == low and low < top:
            high = min(low + stride, top)
            above = yield from self._measure(settings, high)
            if self._is_more(above, point) and self._board.keeps(above):
                low, point = high, above
        while high - low > 1 and self._is_more(above, point):
            middle = (low + high) // 2
            between = yield from self._measure(settings, middle)
            if self._board.keeps(between):
                low, point = middle, between
            else:
                high, above = middle, between

    def _is_more(self, above: Point, point: Point) -> bool:
        return above.throughput > FLAT * point.throughput

    def _wins(self, candidate: Settings) -> Decided:
        """Compare the best of both; what is close is measured again, in turns."""
        while True:
            own, champion = self._board.best(candidate), self._board.best(self.leader)
            if own is None or champion is None:
                return own is not None
            ratio = own.throughput / champion.throughput
            if ratio > CLEARLY_MORE or ratio < self._margin(candidate, CLEARLY_LESS):
                return ratio > CLEARLY_MORE
            fewer = min((own, champion), key=lambda point: len(point.readings))
            if len(fewer.readings) >= MOST_READINGS or (len(fewer.readings) > 1 and _is_apart(own, champion)):
                return self._is_better(candidate, own, champion)
            yield from self._again(fewer)

    def _is_better(self, candidate: Settings, own: Point, champion: Point) -> bool:
        if self._is_leaner(candidate):
            return own.throughput >= AS_GOOD * self._peak
        is_new_window = candidate.policy == "window" and self.leader.policy == "adaptive"
        least = LEAST_GAIN_OF_A_WINDOW if is_new_window else LEAST_GAIN
        return own.throughput > least * champion.throughput and _is_apart(own, champion)

    def _is_leaner(self, candidate: Settings) -> bool:
        return self._cost(candidate) < self._cost(self.leader)

    def _cost(self, settings: Settings) -> tuple[int, int, bool]:
        return settings.workers, settings.threads(self._space.cores), settings.policy == "window"

    def _margin(self, candidate: Settings, otherwise: float) -> float:
        """Which share of the champion's throughput is still worth a repetition."""
        return otherwise if self._is_leaner(candidate) else max(otherwise, 0.98)

    def _measure(self, settings: Settings, rung: int) -> Measured:
        load = self._loads[rung]
        known = self._board.find(settings, load)
        if known is not None:
            return known
        return (yield from self._read(settings, load, self._board.of(settings)[-1:]))

    def _again(self, point: Point) -> Measured:
        return (yield from self._read(point.settings, point.load, [point]))

    def _read(self, settings: Settings, load: Load, like: list[Point]) -> Measured:
        seconds = self._seconds(like or self._board.points[-1:])
        if self._board.points and self._board.spent_s + seconds * (1 + WARM_SHARE) > self._budget_s:
            raise _OutOfTime
        ask = Ask(settings, load, seconds, seconds * WARM_SHARE, self._why)
        reading = yield ask
        return self._board.add(ask, reading)

    def _seconds(self, like: list[Point]) -> float:
        """Enough for a 99th percentile, if it is about as fast as these were."""
        short = min(1.0, max(LEAST_SHORTENED, self._budget_s / USUAL_BUDGET_S))
        expected = like[0].throughput if like else REQUESTS / LEAST_S
        return short * min(MOST_S, max(LEAST_S, REQUESTS / max(expected, 1e-9)))


def _is_apart(one: Point, other: Point) -> bool:
    """Whether each reading of the one is on the same side of each of the other."""
    mine = [reading.throughput for reading in one.readings]
    others = [reading.throughput for reading in other.readings]
    return min(mine) > max(others) or max(mine) < min(others)

"""Under which load do settings do best? The pure half of the search that knows loads; it is told what was measured.

The load goes up a ladder until latency passes the goal or throughput stays flat; where it passed, the rungs between
are tried. There are handlers of which more clients get less, as larger batches outgrow a cache or are padded to their
longest row: where that was seen, lower rungs are tried too.
"""

from __future__ import annotations

from collections.abc import Generator

from nbserve.tune.board import Board
from nbserve.tune.points import Ask, Load, Point, Reading, Settings
from nbserve.tune.space import Space

Asks = Generator[Ask, Reading, None]
Measured = Generator[Ask, Reading, Point]

# A load that brings less than this brings nothing.
FLAT = 1.03
# Up to so many clients a first step that brings nothing is no reason to go no higher: small loads are odd.
SMALL_LOAD = 32
# More clients get no less, unless something disturbs.
LESS = 0.9
# Or unless larger batches are slower: then they get that little, each time.
FALLEN = 0.8
# How many rungs below the best a proof goes where luck was in it.
LOWER = (0, 1, 2, 4)
REQUESTS = 200
LEAST_S, MOST_S = 0.7, 2.5
WARM_SHARE = 0.3
LEAST_OPEN_S, MOST_OPEN_S, OPEN_GOALS = 1.5, 4.0, 10
# With less time than that, measurements are shorter, but not by more than that.
USUAL_BUDGET_S, LEAST_SHORTENED = 60.0, 0.25


class OutOfTime(Exception):
    """The time is up."""


class Ramp:
    """Yields Asks and is sent Readings; `why` is told with each. Raises OutOfTime where `budget_s` is spent.

    `falls` once more clients were seen to get less.
    """

    def __init__(self, space: Space, board: Board, current: Settings, budget_s: float) -> None:
        self.why = ""
        self.falls = False
        self.loads = space.loads()
        self._space = space
        self._board = board
        self._current = current
        self._budget_s = budget_s

    def lower(self, load: Load) -> list[Load]:
        """This one and some below it, downwards, in steps that grow."""
        rung = self.loads.index(load)
        return [self.loads[rung - down] for down in LOWER if down <= rung]

    def climb(self, settings: Settings, rung: int, stride: int, to_beat: float) -> Asks:
        """Find the load under which these settings do best; give up when they do not get beyond `to_beat`."""
        point = yield from self.measure(settings, rung)
        while rung > 0 and not self._board.keeps(point):
            if point.throughput <= to_beat and not self.falls:
                return  # Fewer clients would get no more.
            rung = max(0, rung - stride)
            point = yield from self.measure(settings, rung)
        if self._board.keeps(point):
            yield from self.ascend(settings, rung, stride, point)
            yield from self._look_for_fall(settings)
        if self.falls:
            yield from self._peak(settings, stride, to_beat)

    def ascend(self, settings: Settings, low: int, stride: int, point: Point) -> Asks:
        """From a load that keeps the goal to the highest that does and brings more."""
        top = len(self.loads) - 1
        high, above, flat_steps = low, point, 0
        while high < top and not self._is_flat(high, flat_steps) and self._board.keeps(above):
            high = min(high + stride, top)
            above = yield from self.measure(settings, high, point)
            if not self._board.keeps(above) or not _is_more(above, point):
                flat_steps += 1
                continue
            low, point, flat_steps = high, above, 0
            # The rates of an open loop are close, and may have far to go.
            stride *= 2 if self._space.is_open else 1
        yield from self._between(settings, low, high, point, above)

    def _is_flat(self, rung: int, flat_steps: int) -> bool:
        is_small = not self._space.is_open and self.loads[rung].clients < SMALL_LOAD
        return flat_steps > (1 if is_small else 0)

    def _between(self, settings: Settings, low: int, high: int, point: Point, above: Point) -> Asks:
        """Halve the distance from a load that keeps the goal to one that does not, but brings more."""
        while high - low > 1 and not self._board.keeps(above) and _is_more(above, point):
            middle = (low + high) // 2
            between = yield from self.measure(settings, middle, point)
            if self._board.keeps(between):
                low, point = middle, between
            else:
                high, above = middle, between

    def _look_for_fall(self, settings: Settings) -> Asks:
        """Did more clients get clearly less, twice?"""
        best = self._board.best(settings)
        if best is None or self._space.is_open or self.falls:
            return
        for point in self._board.of(settings):
            if _has_fallen(point, best) and len(point.readings) < 2:
                yield from self.again(point)
            self.falls = self.falls or _has_fallen(point, best)

    def _peak(self, settings: Settings, stride: int, to_beat: float) -> Asks:
        """Go to both sides of the best load, in steps that are halved where they bring nothing but come near."""
        while stride and (best := self._board.best(settings)) is not None:
            at = self.loads.index(best.load)
            for rung in (at - stride, at + stride):
                if 0 <= rung < len(self.loads):
                    yield from self.measure(settings, rung)
            found = self._board.best(settings)
            assert found is not None
            if not _is_more(found, best):
                stride = stride // 2 if found.throughput > LESS * to_beat else 0

    def measure(self, settings: Settings, rung: int, below: Point | None = None) -> Measured:
        """A load once, and once more where something may have disturbed it; `below` is what a lower load brought."""
        load = self.loads[rung]
        known = self._board.find(settings, load)
        if known is not None:
            return known
        point = yield from self._read(settings, load, self._board.of(settings)[-1:])
        while len(point.readings) < self._patience(settings) and self._is_doubtful(point, below):
            yield from self.again(point)
        return point

    def again(self, point: Point) -> Measured:
        return (yield from self._read(point.settings, point.load, [point]))

    def _patience(self, settings: Settings) -> int:
        return 3 if settings == self._current else 2

    def _is_doubtful(self, point: Point, below: Point | None) -> bool:
        """Few of its requests were late, or more clients got less."""
        if point.errors or self._board.keeps(point):
            return False
        is_late_in_part = point.p50_ms <= self._space.goal.p99_ms
        is_less = below is not None and point.throughput < LESS * below.throughput
        return is_late_in_part or is_less

    def _read(self, settings: Settings, load: Load, like: list[Point]) -> Measured:
        seconds = self._seconds(like or self._board.points[-1:])
        if self._board.points and self._board.spent_s + seconds * (1 + WARM_SHARE) > self._budget_s:
            raise OutOfTime
        ask = Ask(settings, load, seconds, seconds * WARM_SHARE, self.why)
        reading = yield ask
        return self._board.add(ask, reading)

    def _seconds(self, like: list[Point]) -> float:
        """Enough for a 99th percentile, if it is about as fast as these were."""
        short = min(1.0, max(LEAST_SHORTENED, self._budget_s / USUAL_BUDGET_S))
        expected = like[0].throughput if like else REQUESTS / LEAST_S
        seconds = min(MOST_S, max(LEAST_S, REQUESTS / max(expected, 1e-9)))
        if self._space.is_open:
            return max(LEAST_OPEN_S, short * max(seconds, self._least_open_s()))
        return short * seconds

    def _least_open_s(self) -> float:
        """A queue that grows slowly takes a while to be seen."""
        return min(MOST_OPEN_S, max(LEAST_OPEN_S, OPEN_GOALS * self._space.goal.p99_ms / 1000))


def _is_more(above: Point, point: Point) -> bool:
    return above.throughput > FLAT * point.throughput


def _has_fallen(above: Point, best: Point) -> bool:
    return above.load.size > best.load.size and not above.errors and above.throughput < FALLEN * best.throughput

"""Which settings to measure next, under which load. Pure: no clock, no I/O; it is told what was measured.

Each settings are judged by the most they do within the goal: the load goes up until latency passes the goal or
throughput stays flat. From the best settings so far one coordinate after the other is changed, as long as that helps.
Machines are disturbed, and change from minute to minute: who wins was measured in turns with who loses, and who lost
by little, or by bad luck, gets a second chance.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

from nbserve.tune import rivals
from nbserve.tune.board import Board
from nbserve.tune.points import Ask, Load, Point, Reading, Settings
from nbserve.tune.space import COORDINATES, Coordinate, Space, highest

Asks = Generator[Ask, Reading, None]
Measured = Generator[Ask, Reading, Point]
Decided = Generator[Ask, Reading, bool]

# A load that brings less than this brings nothing.
FLAT = 1.03
# Up to so many clients a first step that brings nothing is no reason to go no higher: small loads are odd.
SMALL_LOAD = 32
# More clients get no less, unless something disturbs.
IMPLAUSIBLE = 0.9
# Who has less than this share of the best is not looked at more closely.
HOPELESS = 0.95
# How much less latency counts, where nothing keeps the goal.
NEARER = 0.9
# Rungs of the ladder of loads: of the first ramp, and of later ones, which begin near the best.
FIRST_STRIDE, STRIDE = 4, 2
# How many rungs below the best a proof goes where luck was in it.
LOWER = (0, 1, 3, 6)
REQUESTS = 200
LEAST_S, MOST_S = 0.7, 2.5
WARM_SHARE = 0.3
LEAST_OPEN_S, MOST_OPEN_S, OPEN_GOALS = 1.5, 4.0, 10
# With less time than that, measurements are shorter, but not by more than that.
USUAL_BUDGET_S, LEAST_SHORTENED = 60.0, 0.25


class _OutOfTime(Exception):
    """The time is up."""


class Search:
    """Drive it as a generator: it yields an Ask and is sent the Reading. `is_clear` when nothing is left to try."""

    def __init__(self, space: Space, board: Board, current: Settings, budget_s: float) -> None:
        self.leader = current
        self.is_clear = False
        self._current = current
        self._space = space
        self._board = board
        self._budget_s = budget_s
        self._loads = space.loads()
        self._tried = {current}
        self._looked_at: set[Settings] = set()
        self._why = "the current settings"

    def asks(self) -> Asks:
        try:
            yield from self._ramp(self.leader, 0, FIRST_STRIDE, 0.0)
            self._why = "well-known settings"
            for settings in self._space.seeds():
                yield from self._challenge(settings)
            yield from self._climb()
            while (yield from self._look_again()):
                yield from self._climb()
            yield from self._give_current_its_due()
            self.is_clear = True
        except _OutOfTime:
            self._leave_no_goal_missed()

    def _leave_no_goal_missed(self) -> None:
        """There was no time to crown anybody: who keeps the goal at all is better than who does not."""
        best = self._board.best_of_all()
        if best is not None and self._board.best(self.leader) is None:
            self.leader = best.settings

    def lower_loads(self, load: Load) -> list[Load]:
        """This one and some below it, downwards, in steps that grow."""
        rung = self._loads.index(load)
        return [self._loads[rung - down] for down in LOWER if down <= rung]

    def is_leaner(self, one: Settings, other: Settings) -> bool:
        """Whether it takes fewer workers, or fewer threads with as many, or no window with as many."""
        return self._cost(one) < self._cost(other)

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
        for neighbour in self._neighbours(coordinate):
            if (yield from self._challenge(neighbour)):
                return True
        return False

    def _neighbours(self, coordinate: Coordinate) -> list[Settings]:
        line = self._space.line(coordinate, self.leader)
        own = line.index(self.leader)
        return [line[own + step] for step in (2, 1, -2, -1) if 0 <= own + step < len(line)]

    def _challenge(self, candidate: Settings) -> Decided:
        """Whether the candidate is better than the leader, and leads now."""
        if candidate in self._tried or self._is_moot(candidate):
            return False
        self._tried.add(candidate)
        champion = yield from self._hold()
        if champion is None:
            won = yield from self._challenge_in_need(candidate)
        elif self._is_open:
            won = yield from self._challenge_at_rates(candidate, champion)
        else:
            rung = self._start(candidate, champion)
            yield from self._ramp(candidate, rung, STRIDE, HOPELESS * champion.latest.throughput)
            won = yield from self._wins(candidate)
        self.leader = candidate if won else self.leader
        return won

    def _hold(self) -> Generator[Ask, Reading, Point | None]:
        """The best of the leader; where its loads turned out to be too much, lower ones are tried."""
        lowest = min(self._loads.index(point.load) for point in self._board.of(self.leader))
        if self._board.best(self.leader) is None and lowest > 0:
            yield from self._ramp(self.leader, max(0, lowest - STRIDE), STRIDE, 0.0)
        return self._board.best(self.leader)

    def _challenge_in_need(self, candidate: Settings) -> Decided:
        """Nothing keeps the goal yet: what comes nearer is better."""
        yield from self._ramp(candidate, 0, STRIDE, 0.0)
        nearest, leading = self._board.nearest(candidate), self._board.nearest(self.leader)
        if self._board.best(candidate) is not None or leading is None:
            return nearest is not None
        return nearest is not None and nearest.p99_ms < NEARER * leading.p99_ms

    def _challenge_at_rates(self, candidate: Settings, champion: Point) -> Decided:
        """Who keeps the goal at a higher rate is better; leaner settings need not do more than the leader."""
        is_leaner = self.is_leaner(candidate, self.leader)
        rung = self._loads.index(champion.load) + (not is_leaner)
        if rung >= len(self._loads):
            return False
        point = yield from self._measure(candidate, rung)
        if self._board.keeps(point):
            yield from self._ascend(candidate, rung, STRIDE, point)
        best = self._board.best(candidate)
        if best is None:
            return False
        yield from self._again(best)
        return self._board.keeps(best)

    @property
    def _is_open(self) -> bool:
        return self._space.goal.rate is not None

    def _look_again(self) -> Decided:
        """Neighbours of the leader that may have lost because something disturbed them; whether one leads now."""
        champion = yield from self._hold()
        if champion is None or self._is_open:
            return False
        self._why = "a second look"
        for candidate in self._unlucky(champion):
            self._looked_at.add(candidate)
            best = self._board.best(candidate) or self._board.nearest(candidate)
            if best is not None:
                yield from self._again(best)
            if (yield from self._wins(candidate)):
                self.leader = candidate
                return True
        return False

    def _unlucky(self, champion: Point) -> Iterator[Settings]:
        """Those that would have to be disturbed no more than the champion was to be as good."""
        enough = (HOPELESS - 2 * champion.spread) * champion.throughput
        for settings in [neighbour for each in COORDINATES for neighbour in self._neighbours(each)]:
            own = self._board.of(settings)
            if settings not in self._looked_at and own and max(point.throughput for point in own) > enough:
                yield settings

    def _give_current_its_due(self) -> Asks:
        """What the winner is measured against in the end must be the best of the current settings."""
        best = self._board.best(self._current)
        if best is None or self.leader == self._current:
            return
        self._why = "the current settings"
        for point in self._board.of(self._current):
            if point.load.size > best.load.size and len(point.readings) < rivals.MOST_ROUNDS:
                yield from self._again(point)
        best = self._board.best(self._current) or best
        yield from self._ascend(self._current, self._loads.index(best.load), STRIDE, best)

    def _is_moot(self, candidate: Settings) -> bool:
        """Whether it would do just what the leader does: no batch was ever as large as either lets it be."""
        if self.leader.policy == "window" or candidate.policy == "window" or self._is_open:
            return False
        most = self._board.most_load(self.leader)
        same_workers = candidate.workers == self.leader.workers
        same_threads = candidate.threads(self._space.cores) == self.leader.threads(self._space.cores)
        is_bound = most > candidate.workers * min(candidate.max_batch_size, self.leader.max_batch_size)
        return same_workers and same_threads and not is_bound

    def _start(self, candidate: Settings, champion: Point) -> int:
        """The rung to begin with: the champion's, or as many clients for each worker as there."""
        return highest(self._loads, champion.load.size * candidate.workers / self.leader.workers)

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
        high, above, flat_steps = low, point, 0
        while high < top and not self._is_flat(high, flat_steps) and self._board.keeps(above):
            high = min(high + stride, top)
            above = yield from self._measure(settings, high, point)
            if not self._board.keeps(above) or not _is_more(above, point):
                flat_steps += 1
                continue
            low, point, flat_steps = high, above, 0
            # The rates of an open loop are close, and may have far to go.
            stride *= 2 if self._is_open else 1
        yield from self._between(settings, low, high, point, above)

    def _is_flat(self, rung: int, flat_steps: int) -> bool:
        return flat_steps > (not self._is_open and self._loads[rung].clients < SMALL_LOAD)

    def _between(self, settings: Settings, low: int, high: int, point: Point, above: Point) -> Asks:
        """Halve the distance from a load that keeps the goal to one that does not, but brings more."""
        while high - low > 1 and not self._board.keeps(above) and _is_more(above, point):
            middle = (low + high) // 2
            between = yield from self._measure(settings, middle, point)
            if self._board.keeps(between):
                low, point = middle, between
            else:
                high, above = middle, between

    def _wins(self, candidate: Settings) -> Decided:
        """Measure the best of both in turns until it is clear who has more; leaner settings need no more."""
        own, champion = self._board.best(candidate), (yield from self._hold())
        if own is None or champion is None:
            return own is not None
        match = rivals.Match(self._is_leaner_now(candidate), self._least_gain(candidate))
        if own.throughput < HOPELESS * champion.latest.throughput:
            return False
        while match.is_open:
            if match.rounds:
                yield from self._again(own)
            yield from self._again(champion)
            match.add(own.latest.throughput / max(champion.latest.throughput, 1e-9))
        return match.is_won and self._board.keeps(own)

    def _is_leaner_now(self, candidate: Settings) -> bool:
        return self.is_leaner(candidate, self.leader)

    def _least_gain(self, candidate: Settings) -> float:
        is_new_window = candidate.policy == "window" and self.leader.policy == "adaptive"
        return rivals.LEAST_GAIN_OF_A_WINDOW if is_new_window else rivals.LEAST_GAIN

    def _cost(self, settings: Settings) -> tuple[int, int, bool]:
        return settings.workers, settings.threads(self._space.cores), settings.policy == "window"

    def _measure(self, settings: Settings, rung: int, below: Point | None = None) -> Measured:
        """A load once, and once more where something may have disturbed it; `below` is what a lower load brought."""
        load = self._loads[rung]
        known = self._board.find(settings, load)
        if known is not None:
            return known
        point = yield from self._read(settings, load, self._board.of(settings)[-1:])
        while len(point.readings) < self._patience(settings) and self._is_doubtful(point, below):
            yield from self._again(point)
        return point

    def _patience(self, settings: Settings) -> int:
        return 3 if settings == self._current else 2

    def _is_doubtful(self, point: Point, below: Point | None) -> bool:
        """Few of its requests were late, or more clients got less."""
        if point.errors or self._board.keeps(point):
            return False
        is_late_in_part = point.p50_ms <= self._space.goal.p99_ms
        is_less = below is not None and point.throughput < IMPLAUSIBLE * below.throughput
        return is_late_in_part or is_less

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
        seconds = min(MOST_S, max(LEAST_S, REQUESTS / max(expected, 1e-9)))
        return short * (max(seconds, self._least_open_s()) if self._is_open else seconds)

    def _least_open_s(self) -> float:
        """A queue that grows slowly takes a while to be seen."""
        return min(MOST_OPEN_S, max(LEAST_OPEN_S, OPEN_GOALS * self._space.goal.p99_ms / 1000))


def _is_more(above: Point, point: Point) -> bool:
    return above.throughput > FLAT * point.throughput

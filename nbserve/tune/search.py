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
from nbserve.tune.ramp import Asks, OutOfTime, Ramp
from nbserve.tune.space import COORDINATES, Coordinate, Space, highest

Decided = Generator[Ask, Reading, bool]

# Who has less than this share of the best is not looked at more closely.
HOPELESS = 0.95
# How much less latency counts, where nothing keeps the goal.
NEARER = 0.9
# Of a rate that was kept once, to be kept again.
CHANCES = 2
# Rungs of the ladder of loads: of the first ramp, and of later ones, which begin near the best.
FIRST_STRIDE, STRIDE = 4, 2


class Search:
    """Drive it as a generator: it yields an Ask and is sent the Reading. `is_clear` when nothing is left to try."""

    def __init__(self, space: Space, board: Board, current: Settings, budget_s: float) -> None:
        self.leader = current
        self.is_clear = False
        self._current = current
        self._space = space
        self._board = board
        self._ramp = Ramp(space, board, current, budget_s)
        self._tried = {current}
        self._looked_at: set[Settings] = set()

    def asks(self) -> Asks:
        try:
            self._ramp.why = "the current settings"
            yield from self._ramp.climb(self.leader, 0, FIRST_STRIDE, 0.0)
            self._ramp.why = "well-known settings"
            for settings in self._space.seeds():
                yield from self._challenge(settings)
            yield from self._climb()
            while (yield from self._look_again()):
                yield from self._climb()
            yield from self._give_current_its_due()
            self.is_clear = True
        except OutOfTime:
            self._take_what_was_seen()

    def _take_what_was_seen(self) -> None:
        """There was no time to crown anybody: who did clearly more leads, and the proof has the last word."""
        best, own = self._board.best_of_all(), self._board.best(self.leader)
        if best is not None and (own is None or best.throughput > rivals.CLEARLY_MORE * own.throughput):
            self.leader = best.settings

    def lower_loads(self, load: Load) -> list[Load]:
        """This one and some below it, for a winner that had luck."""
        return self._ramp.lower(load)

    def is_leaner(self, one: Settings, other: Settings) -> bool:
        """Whether it takes fewer workers, or fewer threads with as many, or no window with as many.

        Where larger batches may be slower, of what is as good the smaller limit is leaner: it holds under more load.
        """
        return self._cost(one) < self._cost(other)

    def _climb(self) -> Asks:
        has_moved = True
        while has_moved:
            has_moved = False
            for coordinate in COORDINATES:
                self._ramp.why = coordinate
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
        steps: tuple[int, ...] = (2, 1, -2, -1)
        if coordinate == "policy" and own == 0:
            # A window helps where it lasts until all have come back: a short one then is as bad as none.
            steps = (max(2, len(line) - 2), 1)
        if coordinate == "batch size" and self._is_size_a_cost:
            # Limits that the best load does not reach change nothing: the first that does is the next.
            down = self._unfilled(line[: own + 1])
            steps = (2, 1, -down, -down - 1) if down else (2, 1, -2, -1, -4)
        return [line[own + step] for step in steps if 0 <= own + step < len(line)]

    @property
    def _is_size_a_cost(self) -> bool:
        """Whether larger batches may be slower: rates do not choose the size, and of clients it was seen."""
        return self._space.is_open or self._ramp.falls

    def _unfilled(self, smaller: list[Settings]) -> int:
        """How many steps down it is to the largest batches that the clients of the best load can fill."""
        best = self._board.best(self.leader)
        if best is None or self._space.is_open:
            return 0
        filled = best.load.size / self.leader.workers
        return sum(settings.max_batch_size > max(1, filled) for settings in smaller)

    def _challenge(self, candidate: Settings) -> Decided:
        """Whether the candidate is better than the leader, and leads now."""
        if candidate in self._tried or self._is_moot(candidate):
            return False
        self._tried.add(candidate)
        champion = yield from self._hold()
        if champion is None:
            won = yield from self._challenge_in_need(candidate)
        elif self._space.is_open:
            won = yield from self._challenge_at_rates(candidate, champion)
        else:
            rung = self._start(candidate, champion)
            yield from self._ramp.climb(candidate, rung, STRIDE, HOPELESS * champion.latest.throughput)
            won = yield from self._wins(candidate)
        self.leader = candidate if won else self.leader
        return won

    def _hold(self) -> Generator[Ask, Reading, Point | None]:
        """The best of the leader; where its loads turned out to be too much, lower ones are tried."""
        lowest = min(self._ramp.loads.index(point.load) for point in self._board.of(self.leader))
        if self._board.best(self.leader) is None and lowest > 0:
            yield from self._ramp.climb(self.leader, max(0, lowest - STRIDE), STRIDE, 0.0)
        return self._board.best(self.leader)

    def _challenge_in_need(self, candidate: Settings) -> Decided:
        """Nothing keeps the goal yet: what comes nearer is better."""
        yield from self._ramp.climb(candidate, 0, STRIDE, 0.0)
        nearest, leading = self._board.nearest(candidate), self._board.nearest(self.leader)
        if self._board.best(candidate) is not None or leading is None:
            return nearest is not None
        return nearest is not None and nearest.p99_ms < NEARER * leading.p99_ms

    def _challenge_at_rates(self, candidate: Settings, champion: Point) -> Decided:
        """Who keeps the goal at a higher rate is better; leaner settings need not do more than the leader."""
        is_leaner = self.is_leaner(candidate, self.leader)
        rung = self._ramp.loads.index(champion.load) + (not is_leaner)
        if rung >= len(self._ramp.loads):
            return False
        point = yield from self._ramp.measure(candidate, rung)
        if self._board.keeps(point):
            yield from self._ramp.ascend(candidate, rung, STRIDE, point)
        best, refuted = self._board.best(candidate), None
        while best is not None and best is not refuted and self._ramp.loads.index(best.load) >= rung:
            if (yield from self._is_confirmed(best)):
                return True
            best, refuted = self._board.best(candidate), best
        return False

    def _is_confirmed(self, point: Point) -> Decided:
        """Once more is enough; who fails by bad luck has another chance, and after that does not keep this rate."""
        for _ in range(CHANCES):
            yield from self._ramp.again(point)
            if point.latest.keeps(self._space.goal.p99_ms):
                return True
        return False

    def _look_again(self) -> Decided:
        """Neighbours of the leader that may have lost because something disturbed them; whether one leads now."""
        champion = yield from self._hold()
        if champion is None or self._space.is_open:
            return False
        self._ramp.why = "a second look"
        for candidate in self._unlucky(champion):
            self._looked_at.add(candidate)
            best = self._board.best(candidate) or self._board.nearest(candidate)
            if best is not None:
                yield from self._ramp.again(best)
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
        self._ramp.why = "the current settings"
        for point in self._board.of(self._current):
            if point.load.size > best.load.size and len(point.readings) < rivals.MOST_ROUNDS:
                yield from self._ramp.again(point)
        best = self._board.best(self._current) or best
        yield from self._ramp.ascend(self._current, self._ramp.loads.index(best.load), STRIDE, best)

    def _is_moot(self, candidate: Settings) -> bool:
        """Whether it would do just what the leader does: no batch was ever as large as either lets it be."""
        if self.leader.policy == "window" or candidate.policy == "window" or self._space.is_open:
            return False
        most = self._board.most_load(self.leader)
        same_workers = candidate.workers == self.leader.workers
        same_threads = candidate.threads(self._space.cores) == self.leader.threads(self._space.cores)
        is_bound = most > candidate.workers * min(candidate.max_batch_size, self.leader.max_batch_size)
        return same_workers and same_threads and not is_bound

    def _start(self, candidate: Settings, champion: Point) -> int:
        """The rung to begin with: the champion's, or as many clients for each worker as there."""
        return highest(self._ramp.loads, champion.load.size * candidate.workers / self.leader.workers)

    def _wins(self, candidate: Settings) -> Decided:
        """Measure the best of both in turns until it is clear who has more; leaner settings need no more."""
        own, champion = self._board.best(candidate), (yield from self._hold())
        if own is None or champion is None:
            return own is not None
        match = rivals.Match(self.is_leaner(candidate, self.leader), self._least_gain(candidate))
        if own.throughput < HOPELESS * champion.latest.throughput:
            return False
        while match.is_open:
            if match.rounds:
                yield from self._ramp.again(own)
            yield from self._ramp.again(champion)
            match.add(own.latest.throughput / max(champion.latest.throughput, 1e-9))
        return match.is_won and self._board.keeps(own)

    def _least_gain(self, candidate: Settings) -> float:
        is_new_window = candidate.policy == "window" and self.leader.policy == "adaptive"
        return rivals.LEAST_GAIN_OF_A_WINDOW if is_new_window else rivals.LEAST_GAIN

    def _cost(self, settings: Settings) -> tuple[int, int, bool, int]:
        limit = settings.max_batch_size if self._is_size_a_cost else 0
        return settings.workers, settings.threads(self._space.cores), settings.policy == "window", limit

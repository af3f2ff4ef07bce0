"""Auto-tune of an endpoint, from the first measurement to the proof. Runs in the kernel or the terminal.

All is measured on trials: the endpoint's own workers and settings stay as they are until the winner is applied.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nbserve.errors import AutoTuneError
from nbserve.profiling.generator import LoadGenerator
from nbserve.profiling.requests import chosen
from nbserve.tune.board import Board
from nbserve.tune.crowd import Crowd
from nbserve.tune.limits import Limits
from nbserve.tune.meter import Meter, meter, refuse_failures
from nbserve.tune.options import TuneOptions
from nbserve.tune.points import Goal, Load, Point, Settings
from nbserve.tune.proof import Contender, Proof, prove
from nbserve.tune.search import Search
from nbserve.tune.state import OnState, State
from nbserve.tune.tuned import Tuned

if TYPE_CHECKING:
    from nbserve.verbs import Endpoint

# A proof that fails ends early, and another at a lower load begins.
MOST_PROOFS = 5
# Of the whole time, for one of them.
PROOF_SHARE, LEAST_PROOF_S, MOST_PROOF_S = 0.2, 4.0, 24.0
# Times the least latency: a goal with which there is something to search.
ROOM = 2.0


def tune(endpoint: Endpoint, options: TuneOptions, on_state: OnState) -> Tuned:
    """Search, prove, and apply if asked to. An interrupt ends it with what was measured so far.

    Raises AutoTuneError when nothing keeps the goal, or when requests fail.
    """
    run = Run(endpoint, options, on_state)
    try:
        proof = run.measure()
    except KeyboardInterrupt:
        if run.best is None:
            raise
        return run.result(None, is_interrupted=True)
    found = run.result(proof)
    return found.applied() if options.apply and found.is_gain else found


class Run:
    """One auto-tune of one endpoint."""

    def __init__(self, endpoint: Endpoint, options: TuneOptions, on_state: OnState) -> None:
        self._endpoint = endpoint
        self._options = options
        self._on_state = on_state
        self._began_s = time.monotonic()
        self._before = endpoint.stats()
        self._crowd = Crowd(endpoint.server.run_file.pid)
        self._requests = chosen(endpoint, options.requests)
        self._limits = Limits.of(endpoint, self._before)
        self._current = Settings.of(self._before["settings"])
        self._board = Board(options.goal)
        self._proof_s = min(MOST_PROOF_S, max(LEAST_PROOF_S, options.seconds * PROOF_SHARE))
        budget_s = options.seconds - self._proof_s
        space = self._limits.space(options.goal, self._before["settings"]["queue_size"])
        self._search = Search(space, self._board, self._current, budget_s)
        self._proven: Point | None = None

    @property
    def best(self) -> Point | None:
        """What was proven, or will be."""
        return self._proven or self._board.best(self._search.leader)

    def measure(self) -> Proof | None:
        """Search, and prove what was found; None when it is what there is."""
        with ExitStack() as stack:
            generator = stack.enter_context(LoadGenerator(self._requests))
            searched = stack.enter_context(self._meter(self._current, generator))
            self._seek(searched)
            if self.best is None:
                raise AutoTuneError(self._out_of_reach())
            if self._search.leader == self._current:
                return None
            beside = stack.enter_context(self._meter(self._current, generator))
            return self._prove(searched, beside)

    def result(self, proof: Proof | None, is_interrupted: bool = False) -> Tuned:
        assert self.best is not None
        after = self._after(is_interrupted)
        return Tuned(
            endpoint=self._endpoint,
            state=self._state("interrupted" if is_interrupted else "done"),
            best=self.best,
            proof=proof,
            version=self._before["version"],
            is_clear=self._search.is_clear,
            is_interrupted=is_interrupted,
            disturbing=_requests(after) - _requests(self._before) if after else 0,
            crowd=self._crowd.share(),
            limit=self._limits.told(self._search.leader),
        )

    def _after(self, is_interrupted: bool) -> dict[str, Any] | None:
        # Who interrupts wants the end, and the server may be gone too.
        return None if is_interrupted else self._endpoint.stats()

    def _meter(self, settings: Settings, generator: LoadGenerator) -> AbstractContextManager[Meter]:
        return meter(self._endpoint, settings, generator, self._options.goal, self._tell)

    def _seek(self, searched: Meter) -> None:
        asks = self._search.asks()
        self._board.spent_s = time.monotonic() - self._began_s
        ask = next(asks)
        try:
            while True:
                self._tell(f"{ask.why}: {ask.settings.words()}, {ask.load.words()}")
                found = searched.measure(ask)
                if not self._board.points:
                    refuse_failures(searched, found, ask)
                ask = asks.send(found)
        except StopIteration:
            return

    def _prove(self, searched: Meter, beside: Meter) -> Proof:
        """Under the best load of each; who kept the goal by luck there gets a lower one."""
        winner = self.best
        assert winner is not None
        searched.configure(winner.settings)
        mine, theirs = self._search.lower_loads(winner.load), self._points_of_current(winner)
        for attempts_left in reversed(range(MOST_PROOFS)):
            is_too_much = self._is_too_much(mine[0])
            may_lower = len(mine) > 1 and attempts_left > 0
            may_lower_other = len(theirs) > 1 and attempts_left > 0 and not is_too_much
            best = Contender(searched, mine[0], winner.throughput, may_lower)
            load = mine[0] if mine[0].rate else theirs[0].load
            current = Contender(beside, load, theirs[0].throughput, may_lower_other)
            found = prove(best, current, self._options.goal, self._proof_s, self._tell_pair)
            self._proven = Point(winner.settings, mine[0], list(found.best.readings))
            if may_lower and not found.best.keeps(self._options.goal):
                mine = mine[1:]
            elif may_lower_other and not found.current.keeps(self._options.goal):
                theirs = theirs[1:]
            else:
                break
        is_leaner = self._search.is_leaner(winner.settings, self._current)
        return replace(found, is_leaner=is_leaner, is_too_much=is_too_much)

    def _points_of_current(self, winner: Point) -> list[Point]:
        """Those within the goal, most throughput first; else the one that came nearest."""
        kept = [point for point in self._board.of(self._current) if point.keeps(self._options.goal.p99_ms)]
        return sorted(kept, key=lambda p: -p.throughput) or [self._board.nearest(self._current) or winner]

    def _is_too_much(self, load: Load) -> bool:
        """Whether the current settings were seen not to keep the goal at all, or not at this rate."""
        own = self._board.best_within(self._current)
        return own is None or (load.rate is not None and load.rate > own.load.size)

    def _tell_pair(self, number: int) -> None:
        self._tell(f"proving: the best against the current settings in turns, pair {number}")

    def _tell(self, what: str) -> None:
        self._on_state(self._state(what))

    def _state(self, what: str) -> State:
        return State(
            name=self._endpoint.name,
            board=self._board,
            current=self._current,
            best=self._search.leader,
            what=what,
            spent_s=time.monotonic() - self._began_s,
            seconds=self._options.seconds,
            proven=self._proven,
        )

    def _out_of_reach(self) -> str:
        goal = self._options.goal
        wanted = f"a p99 of {goal.p99_ms:g} ms" + (f" at {goal.rate:g} requests/s" if goal.rate else "")
        nearest = min(filter(None, map(self._board.nearest, self._tried())), key=lambda p: p.p99_ms, default=None)
        if nearest is None:
            return f"nothing keeps {wanted}: no load was answered without errors ({_failures(self._board)})"
        return (
            f"nothing keeps {wanted}: the nearest was {nearest.p99_ms:.4g} ms, with {nearest.settings.words()} and "
            f"{nearest.load.words()}; {_advice(nearest, goal)}"
        )

    def _tried(self) -> set[Settings]:
        return {point.settings for point in self._board.points}


def _advice(nearest: Point, goal: Goal) -> str:
    more = f"give a goal that leaves room, such as --p99-ms {nearest.p99_ms * ROOM:.2g}"
    return f"{more}, or a lower --load" if goal.rate else more


def _failures(board: Board) -> str:
    found = {what for point in board.points for what in point.errors}
    return ", ".join(sorted(found)) or "nothing was answered"


def _requests(status: Mapping[str, Any]) -> int:
    return sum(status["requests"].values())

"""The decisions about debugged workers: breakpoints, stand-ins, wishes, and which worker a debugger gets."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from nbserve.errors import Conflict, DebugError, NotFound, Unavailable
from nbserve.server.holds import Debugger, Hold, Role, breakpoints_on
from nbserve.server.standins import Standing, Wish, is_standin_wanted
from nbserve.server.targets import pick
from nbserve.server.worker_state import WorkerState

ADA = Debugger("Ada", "pdb", 0.0)
IDLE, ENGAGED, STARTING = Standing(True, False), Standing(False, True), Standing(False, False)


def hold(since_ns: int = 1) -> Hold:
    return Hold("stop", "cell 1", 7, "handle", ("ab-1",), 100.0, since_ns, 220.0)


@dataclass
class Worker:
    index: int = 0
    role: Role = "worker"
    state: WorkerState = WorkerState.READY
    hold: Hold | None = None
    debugger: Debugger | None = None
    failed_ns: int = 0
    busy_since_ns: int = 0


def held(index: int, since_ns: int = 1, debugger: Debugger | None = None) -> Worker:
    return Worker(index, state=WorkerState.HELD, hold=hold(since_ns), debugger=debugger, busy_since_ns=1)


def busy(index: int, since_ns: int, debugger: Debugger | None = None) -> Worker:
    return Worker(index, state=WorkerState.BUSY, busy_since_ns=since_ns, debugger=debugger)


@pytest.mark.parametrize(
    ("role", "is_live", "is_another_held", "on"),
    [
        ("worker", True, False, True),
        ("worker", True, True, False),
        ("worker", False, False, False),
        ("stand-in", True, False, False),
        ("replay", False, True, True),
    ],
)
def test_breakpoints_hold_one_worker_of_a_version_that_serves(
    role: Role, is_live: bool, is_another_held: bool, on: bool
) -> None:
    assert breakpoints_on(role, is_live, is_another_held) is on


@pytest.mark.parametrize(
    ("workers", "is_wanted"),
    [
        ([IDLE], False),
        ([ENGAGED], True),
        ([ENGAGED, IDLE], False),
        ([ENGAGED, ENGAGED], True),
        ([ENGAGED, STARTING], True),
        ([STARTING], False),
        # Its debugger will stop the next request: it serves, and yet is no help.
        ([Standing(True, True)], True),
        ([], False),
    ],
)
def test_a_stand_in_is_wanted_when_nobody_but_engaged_ones_could_serve(
    workers: list[Standing], is_wanted: bool
) -> None:
    assert is_standin_wanted(workers) is is_wanted


def test_a_wish_lasts_until_its_debugger_left_or_never_came() -> None:
    unanswered = Wish("stop")
    assert not unanswered.is_over(False, False, now_ns=10**18)
    answered = replace(unanswered, expires_ns=100)
    assert not answered.is_over(False, False, now_ns=99)
    assert answered.is_over(False, False, now_ns=100)
    assert not answered.is_over(True, False, now_ns=100)
    attached = replace(answered, was_attached=True)
    assert not attached.is_over(True, False, now_ns=1000)
    assert not attached.is_over(False, True, now_ns=1000), "held: it goes when the request went on"
    assert attached.is_over(False, False, now_ns=50)


def test_attach_takes_the_one_that_is_held_longest_and_has_no_debugger() -> None:
    assert pick("attach", [Worker(0), held(1, 20), held(2, 10), held(3, 5, ADA)], "h").index == 2  # type: ignore[union-attr]
    assert pick("attach", [Worker(0)], "h") is None
    with pytest.raises(Conflict, match=r"worker 3 is being debugged by Ada since \d\d:\d\d:\d\d"):
        pick("attach", [held(3, 5, ADA)], "h")


def test_interrupt_takes_the_one_that_runs_longest() -> None:
    assert pick("interrupt", [busy(0, 50), busy(1, 40), busy(2, 30, ADA)], "h").index == 1  # type: ignore[union-attr]
    with pytest.raises(DebugError, match=r"no worker of h runs a request now$"):
        pick("interrupt", [Worker(0)], "h")
    with pytest.raises(DebugError, match="worker 0 is held at cell 1, line 7 in handle"):
        pick("interrupt", [held(0)], "h")


@pytest.mark.parametrize("mode", ["stop", "debugpy"])
def test_a_stop_takes_an_idle_worker_before_a_busy_one_before_a_stand_in(mode: str) -> None:
    standin = Worker(2, role="stand-in")
    workers = [busy(0, 1), Worker(1), standin, Worker(3, role="replay")]
    assert pick(mode, workers, "h").index == 1  # type: ignore[arg-type, union-attr]
    assert pick(mode, [busy(0, 1), standin], "h").index == 0  # type: ignore[arg-type, union-attr]
    assert pick(mode, [held(0), standin], "h").index == 2  # type: ignore[arg-type, union-attr]
    with pytest.raises(DebugError, match=r"worker 0 is held at .*: attach to it"):
        pick(mode, [held(0)], "h")  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="no worker of h serves now"):
        pick(mode, [Worker(0, state=WorkerState.STARTING)], "h")  # type: ignore[arg-type]


def test_post_mortem_takes_the_live_one_that_failed_last() -> None:
    gone = Worker(3, state=WorkerState.DEAD, failed_ns=9)
    workers = [Worker(0, failed_ns=3), Worker(1, failed_ns=7), Worker(2), gone]
    assert pick("post_mortem", workers, "h").index == 1  # type: ignore[union-attr]
    with pytest.raises(DebugError, match="no request of h has failed"):
        pick("post_mortem", [Worker(0), gone], "h")


def test_the_worker_asked_for_is_taken_unless_somebody_has_it() -> None:
    workers = [Worker(0), held(1, debugger=ADA), Worker(2, state=WorkerState.DEAD)]
    assert pick("stop", workers, "h", 0) is workers[0]
    with pytest.raises(Conflict, match="worker 1 is being debugged by Ada"):
        pick("stop", workers, "h", 1)
    with pytest.raises(Unavailable, match="worker 2 of h is not running"):
        pick("attach", workers, "h", 2)
    with pytest.raises(NotFound, match="h has no worker 5; there are: 0, 1, 2"):
        pick("attach", workers, "h", 5)


def test_attach_takes_the_one_of_that_index_that_is_held() -> None:
    workers = [Worker(0), held(0)]
    assert pick("attach", workers, "h", 0) is workers[1]
    assert pick("stop", workers, "h", 0) is workers[0]


def test_a_hold_says_where_it_is_and_when_it_goes_on() -> None:
    event = {"reason": "stop", "file": "cell 1", "line": 7, "function": "handle", "request_ids": [10, 11], "wait_s": 5}
    made = Hold.of_event(event, "ab", now_s=100.0, now_ns=3)
    assert str(made) == "cell 1, line 7 in handle (request ab-a, ab-b)"
    assert (made.goes_on_in_s(102.0), made.goes_on_in_s(200.0)) == (3.0, 0.0)
    waits = Hold.of_event({**event, "request_ids": [], "wait_s": None}, "ab", now_s=100.0, now_ns=3)
    assert str(waits) == "cell 1, line 7 in handle (initialize)"
    assert waits.goes_on_in_s(102.0) is None

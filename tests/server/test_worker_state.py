from __future__ import annotations

import signal

import pytest

from nbserve.server.worker_state import MAX_FAILED_STARTS, TRANSITIONS, Backoff, WorkerState, describe_exit


def test_every_state_can_end_and_only_the_dead_start():
    assert set(TRANSITIONS) == set(WorkerState)
    for state, following in TRANSITIONS.items():
        assert (WorkerState.DEAD in following) == (state is not WorkerState.DEAD)
        # A worker can be held in `initialize`, and then goes on starting.
        assert (WorkerState.STARTING in following) == (state in (WorkerState.DEAD, WorkerState.HELD))


def test_the_first_death_costs_no_wait_and_later_ones_ever_more():
    backoff = Backoff()
    waits = [backoff.died(lived_s=1) for _ in range(10)]
    assert waits[0] == 0
    assert waits[1:4] == [0.5, 1.0, 2.0]
    assert max(waits) == 30


def test_a_worker_that_lived_well_starts_at_once_again():
    backoff = Backoff()
    for _ in range(5):
        backoff.died(lived_s=1)
    assert backoff.died(lived_s=60) == 0


def test_starts_that_fail_again_and_again_are_given_up():
    backoff = Backoff()
    waits = [backoff.failed_to_start() for _ in range(MAX_FAILED_STARTS)]
    assert waits[-1] is None
    assert all(wait is not None and wait > 0 for wait in waits[:-1])


@pytest.mark.parametrize(
    ("status", "by_us", "said"),
    [
        (signal.SIGKILL, False, "out of memory"),
        (signal.SIGKILL, True, "stopped with SIGKILL"),
        (signal.SIGSEGV, False, "SIGSEGV"),
        (9 << 8, False, "code 9"),
        (0, False, "ended its own process"),
    ],
)
def test_an_exit_status_is_put_into_words(status, by_us, said):
    assert said in describe_exit(status, 10**9, by_us)

"""A worker's life as the server sees it: states, allowed transitions, back-off and what an exit status means. Pure."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from enum import Enum


class WorkerState(str, Enum):
    """Where a worker stands. Only the supervisor moves one from state to state.

    HELD is a worker at a breakpoint or a debugger's prompt: it gets no batches, and its time-outs stand still.
    """

    STARTING = "STARTING"
    READY = "READY"
    BUSY = "BUSY"
    HELD = "HELD"
    DRAINING = "DRAINING"
    DEAD = "DEAD"


_S = WorkerState
TRANSITIONS: dict[WorkerState, frozenset[WorkerState]] = {
    _S.DEAD: frozenset({_S.STARTING}),
    _S.STARTING: frozenset({_S.READY, _S.HELD, _S.DRAINING, _S.DEAD}),
    _S.READY: frozenset({_S.BUSY, _S.HELD, _S.DRAINING, _S.DEAD}),
    _S.BUSY: frozenset({_S.READY, _S.HELD, _S.DRAINING, _S.DEAD}),
    _S.HELD: frozenset({_S.BUSY, _S.STARTING, _S.READY, _S.DRAINING, _S.DEAD}),
    _S.DRAINING: frozenset({_S.DEAD}),
}

EXIT_STOPPED = 0
EXIT_CANNOT_START = 3
LIVED_WELL_S = 10.0
MAX_FAILED_STARTS = 5


@dataclass
class Backoff:
    """How long to wait before the next start: not at all after a first death, then ever longer, up to 30 s."""

    deaths: int = 0
    failed_starts: int = 0

    def died(self, lived_s: float) -> float:
        """A worker that had been ready ended after `lived_s`; gives the seconds to wait."""
        self.failed_starts = 0
        self.deaths = 1 if lived_s >= LIVED_WELL_S else self.deaths + 1
        return _delay_s(self.deaths - 1)

    def failed_to_start(self) -> float | None:
        """A worker did not get ready; gives the seconds to wait, None to give up."""
        self.failed_starts += 1
        return None if self.failed_starts >= MAX_FAILED_STARTS else _delay_s(self.failed_starts)


def _delay_s(times: int) -> float:
    return 0.0 if times == 0 else float(min(30.0, 0.25 * 2**times))


def describe_exit(status: int, rss_bytes: int, was_killed_by_us: bool) -> str:
    """What the wait status of a worker says, in a sentence for the log and the notebook."""
    if not os.WIFSIGNALED(status):
        code = os.waitstatus_to_exitcode(status)
        return f"exited with code {code}" + (": the handler ended its own process" if code == EXIT_STOPPED else "")
    name = signal.Signals(os.WTERMSIG(status)).name
    if name != "SIGKILL":
        return f"crashed with {name}; the lines before this one show where"
    if was_killed_by_us:
        return "was stopped with SIGKILL"
    return (
        f"was killed with SIGKILL, most likely out of memory (OOM): it held {rss_bytes / 1e6:.0f} MB when last seen. "
        "Use a smaller max_batch_size or fewer workers"
    )

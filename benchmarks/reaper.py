"""Runs one command with all its descendants below this process; they end with it. One per benchmarked server.

`python benchmarks/reaper.py COMMAND...`: stdlib only, so that it starts in some 20 ms. Daemons of the command are
re-parented here (a child subreaper), so that "the processes of this server" is a question with one answer.
SIGTERM, or the death of the benchmark itself, ends the command's process group politely and then whatever is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
GRACE_S, ORPHANS_S = 4.0, 0.5


class Stopped(Exception):
    """SIGTERM came."""


def main() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    signal.signal(signal.SIGTERM, _stop)
    child = subprocess.Popen(sys.argv[1:], start_new_session=True)
    try:
        code = _wait(child.pid)
    except Stopped:
        code = 0
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        _reap_until(time.monotonic() + GRACE_S, child.pid)
        _reap_until(time.monotonic() + ORPHANS_S)
    while descendants():
        for pid in descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _reap_until(time.monotonic() + 0.2)
    return code


def descendants() -> list[int]:
    """Every process below this one, parents first."""
    found, todo = [], [os.getpid()]
    while todo:
        children = _children(todo.pop())
        found += children
        todo += children
    return found


def _children(pid: int) -> list[int]:
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:
        return []


def _stop(signal_number: int, frame: object) -> None:
    raise Stopped


def _wait(pid: int) -> int:
    while True:
        ended, status = os.wait()
        if ended == pid:
            return os.waitstatus_to_exitcode(status)


def _reap_until(deadline_s: float, last: int | None = None) -> None:
    """Reaps until the deadline, until `last` has ended, or until no child is left."""
    while time.monotonic() < deadline_s:
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if ended and ended == last:
            return
        if not ended:
            time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(main())

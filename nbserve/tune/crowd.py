"""How much of this machine others take while something is measured. Runs in the kernel or the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

import psutil

# With more idle time than that, others are not in the way.
IDLE_SHARE = 0.15


class Crowd:
    """Counts from its making on. Ours are this process, the server, and all that they started."""

    def __init__(self, server_pid: int) -> None:
        self._server_pid = server_pid
        self._before = self._count()

    def share(self) -> float:
        """Which share of all CPU time went to others; 0.0 where enough was left."""
        now = self._count()
        spent, idle, ours = (after - before for after, before in zip(now, self._before, strict=True))
        if spent <= 0 or idle / spent > IDLE_SHARE:
            return 0.0
        return max(0.0, spent - idle - ours) / spent

    def _count(self) -> tuple[float, float, float]:
        """CPU seconds of the machine, of them idle, of them ours."""
        times = psutil.cpu_times()
        idle_s = times.idle + getattr(times, "iowait", 0.0)
        # What guests take is counted as their host's too.
        spent_s = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        return spent_s, idle_s, sum(_cpu_s(self._ours()))

    def _ours(self) -> set[psutil.Process]:
        found = set()
        for pid in (None, self._server_pid):
            with suppress(psutil.Error):
                process = psutil.Process(pid)
                found |= {process, *process.children(recursive=True)}
        return found


def _cpu_s(processes: Iterable[psutil.Process]) -> Iterator[float]:
    """Of each, with what its children took that have ended."""
    for process in processes:
        with suppress(psutil.Error):
            yield sum(process.cpu_times()[:4])

"""Takes samples of an endpoint while somebody follows it, the same ones for all who do. Server process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from nbserve.server.changes import Changes
from nbserve.server.live import TICK_S, Live, Sample


class Sampler:
    """Ticks while it is followed: what nobody looks at costs nothing. `is_over` says that the endpoint is gone."""

    def __init__(self, live: Live, queued: Callable[[], int]) -> None:
        self.is_over = False
        self._live = live
        self._queued = queued
        self._loop = asyncio.get_running_loop()
        self._ticked = Changes()
        self._followers = 0
        self._due_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def newest(self) -> Sample:
        return self._live.newest

    def before(self) -> list[Sample]:
        """The samples of the last two minutes before the newest one."""
        return self._live.before()

    @contextmanager
    def followed(self) -> Iterator[None]:
        """There are samples in this block, and new ones come."""
        self._followers += 1
        if self._timer is None:
            self._due_s = self._loop.time()
            self._live.begin(time.monotonic_ns())
            self._tick()
        try:
            yield
        finally:
            self._followers -= 1
            if not self._followers and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    async def next(self, interval_s: float) -> None:
        """Until the tick that is due after `interval_s`, or until the endpoint is gone."""
        if interval_s < TICK_S:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._ticked.wait(), interval_s)
            return
        for _ in range(round(interval_s / TICK_S)):
            if not self.is_over:
                await self._ticked.wait()

    def close(self) -> None:
        """The endpoint is gone: tell those who follow it."""
        self.is_over = True
        self._ticked.notify()

    def _tick(self) -> None:
        # Where the loop was late, the missed ticks are left out.
        self._due_s = max(self._due_s + TICK_S, self._loop.time())
        self._timer = self._loop.call_at(self._due_s, self._tick)
        self._live.sample(time.monotonic_ns(), time.time(), self._queued())
        self._ticked.notify()

"""Looks at all workers ten times a second: who takes too long, how much memory and CPU they use. Server process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Any, Protocol

import psutil

from nbserve.errors import StartError
from nbserve.server.channel import InFlight
from nbserve.server.logbook import logger
from nbserve.server.worker import Worker
from nbserve.server.worker_state import WorkerState

TICK_S = 0.1
STACK_DUMP_S = 0.3
TICKS_PER_SAMPLE = 10


class Ends(Protocol):
    """What the watch may do to a worker."""

    def dump_stack(self, worker: Worker) -> None: ...

    def kill(self, worker: Worker) -> None: ...


class Watch:
    """Has workers that give no answer, or do not get ready, write their stack to the log and then be killed.

    It leaves those alone that a debugger has.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, workers: Collection[Worker], ends: Ends, spawn: Callable[[Any], None]
    ) -> None:
        self._loop = loop
        self._workers = workers
        self._ends = ends
        self._spawn = spawn
        self._ticks = 0
        self._timer = loop.call_later(TICK_S, self._tick)

    def stop(self) -> None:
        self._timer.cancel()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK_S, self._tick)
        self._ticks += 1
        now_ns = time.monotonic_ns()
        for worker in self._workers:
            if not worker.is_time_still and not worker.is_hung:
                self._check(worker, now_ns)
            if self._ticks % TICKS_PER_SAMPLE == 0:
                sample_memory(worker)
                _sample_cpu(worker)

    def _check(self, worker: Worker, now_ns: int) -> None:
        config = worker.owner.config
        if worker.in_flight:
            batch = worker.channel.in_flight[0]
            if now_ns - batch.started_ns > config.response_timeout_s * 1e9:
                self._spawn(self._replace_hung(worker, batch))
        elif worker.state is WorkerState.STARTING and worker.launched_ns:
            is_slow = now_ns - worker.launched_ns > config.start_timeout_s * 1e9
            if is_slow:
                self._spawn(self._end_slow_start(worker))

    async def _replace_hung(self, worker: Worker, batch: InFlight) -> None:
        """Unless it answers or is held meanwhile."""
        logger.error("%s gave no answer in time; its stack:", worker, extra=worker.who)
        await self._show_stack(worker)
        if not worker.is_time_still and worker.channel.in_flight and worker.channel.in_flight[0] is batch:
            self._ends.kill(worker)
        else:
            worker.is_hung = False

    async def _end_slow_start(self, worker: Worker) -> None:
        limit_s = worker.owner.config.start_timeout_s
        logger.error("%s is still starting after %g s; its stack:", worker, limit_s, extra=worker.who)
        await self._show_stack(worker)
        if worker.state is WorkerState.STARTING:
            text = f"initialize took longer than {limit_s:g} s (start_timeout_s); the log shows where it was"
            worker.start_error = StartError(text)
            self._ends.kill(worker)
        else:
            worker.is_hung = False

    async def _show_stack(self, worker: Worker) -> None:
        worker.is_hung = True
        self._ends.dump_stack(worker)
        await asyncio.sleep(STACK_DUMP_S)


def sample_memory(worker: Worker) -> None:
    try:
        if worker.process is not None:
            worker.rss_bytes = worker.process.memory_info().rss
    except psutil.Error:
        pass  # It just ended: the last figure stands.


def _sample_cpu(worker: Worker) -> None:
    """Only here: psutil counts from the last call, so that two who ask would spoil each other's figures."""
    try:
        worker.cpu_percent = worker.process.cpu_percent(None) if worker.process is not None else 0.0
    except psutil.Error:
        worker.cpu_percent = 0.0

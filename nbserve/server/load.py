"""Load on an endpoint: the other end of the load generator's process. Server process."""

from __future__ import annotations

import asyncio
import base64
import time
from asyncio.subprocess import Process
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, TypedDict

import orjson

from nbserve.errors import Unavailable
from nbserve.load.job import DRAIN_LIMIT_S, Job, Outcome, Progress
from nbserve.server.child import start_child
from nbserve.server.logbook import logger

PROGRESS_S = 0.25
STOP_LIMIT_S = 3.0
# Its process has to start, and to send what it asks.
START_LIMIT_S = 15.0
_MOST_LINE_BYTES = 2**24

Request = tuple[str, bytes]


class LoadStatus(TypedDict):
    """A run of load: as many `clients` or requests a second (`rate`) as were asked for, and what came back until now.

    `outcome` is what there is to say when it has ended.
    """

    clients: int | None
    rate: float | None
    seconds: float
    began_s: float
    is_running: bool
    requests: int
    errors: dict[str, int]
    outcome: Outcome | None


class Load:
    """One run of load in a process of its own, which ends with the run or with this server."""

    def __init__(self, name: str, job: Job, process: Process) -> None:
        self._name = name
        self._job = job
        self._process = process
        self._began_s = time.time()
        self._progress = Progress(requests=0, errors={})
        self._outcome: Outcome | None = None
        self._running: asyncio.Task[None] | None = None
        self._was_killed = False

    @classmethod
    async def start(cls, name: str, job: Job, requests: Sequence[Request]) -> Load:
        process = await start_child("nbserve.load", most_line_bytes=_MOST_LINE_BYTES)
        load = cls(name, job, process)
        load._running = asyncio.create_task(load._run(requests))
        return load

    @property
    def is_running(self) -> bool:
        return self._running is not None and not self._running.done()

    def status(self) -> LoadStatus:
        return LoadStatus(
            clients=self._job.clients if self._job.rate is None else None,
            rate=self._job.rate,
            seconds=self._job.seconds,
            began_s=self._began_s,
            is_running=self.is_running,
            requests=self._progress["requests"],
            errors=self._progress["errors"],
            outcome=self._outcome,
        )

    async def stop(self) -> None:
        """End the run; what is on its way has a moment to come back."""
        self._order("stop")
        assert self._running is not None
        _, late = await asyncio.wait({self._running}, timeout=STOP_LIMIT_S)
        if late:
            self.kill()
            await asyncio.wait(late)

    def kill(self) -> None:
        self._was_killed = True
        with suppress(ProcessLookupError):
            self._process.kill()

    async def _run(self, requests: Sequence[Request]) -> None:
        bodies = [(content_type, base64.b64encode(body).decode()) for content_type, body in requests]
        self._order("requests", requests=bodies)
        self._order("run", **asdict(self._job))
        try:
            await asyncio.wait_for(self._follow(), START_LIMIT_S + self._job.seconds + DRAIN_LIMIT_S)
        except asyncio.TimeoutError:
            self._note_error(f"no answer {DRAIN_LIMIT_S:g} s after the end")
        finally:
            self.kill()
            await self._process.wait()

    async def _follow(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        async for line in self._process.stdout:
            said = orjson.loads(line)
            if "progress" not in said:
                self._outcome = said
                self._progress = Progress(requests=said["requests"], errors=said["errors"])
                return
            self._progress = said["progress"]
        lines = (await self._process.stderr.read()).decode(errors="replace").strip().splitlines()
        if not self._was_killed:
            said = lines[-1] if lines else "it said nothing"
            logger.error("the load generator ended: %s", said, extra={"endpoint": self._name})
            self._note_error("the load generator ended")

    def _note_error(self, text: str) -> None:
        errors = self._progress["errors"]
        self._progress["errors"] = {**errors, text: errors.get(text, 0) + 1}

    def _order(self, what: str, **details: Any) -> None:
        assert self._process.stdin is not None
        # One that has ended needs no order.
        if not self._process.stdin.is_closing():
            self._process.stdin.write(orjson.dumps({"do": what, **details}) + b"\n")


class Loads:
    """The load on one endpoint: one run at a time, of which the last is remembered."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._last: Load | None = None
        self._lock = asyncio.Lock()
        self._is_closed = False

    def status(self) -> LoadStatus | None:
        return self._last.status() if self._last is not None else None

    async def start(self, job: Job, requests: Sequence[Request]) -> None:
        """Begin a run in the place of one that still goes on."""
        async with self._lock:
            await self._stop()
            if self._is_closed:
                raise Unavailable(f"endpoint {self._name} is stopping")
            self._last = await Load.start(self._name, job, requests)

    async def stop(self) -> None:
        """End the run that goes on, if there is one."""
        async with self._lock:
            await self._stop()

    async def close(self) -> None:
        """The endpoint is stopping: nothing is asked of it any more, at once."""
        self._is_closed = True
        if self._last is not None:
            self._last.kill()
        await self.stop()

    async def _stop(self) -> None:
        if self._last is not None and self._last.is_running:
            await self._last.stop()

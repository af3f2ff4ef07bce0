"""The export of an endpoint, ordered by who manages it: the other end of `nbserve export`'s process. Server process."""

from __future__ import annotations

import asyncio
import time
from asyncio.subprocess import Process
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import orjson

from nbserve.errors import Conflict, Unavailable
from nbserve.server.child import start_child
from nbserve.server.logbook import logger

# Enough to end what it started, and to take away what it wrote.
STOP_LIMIT_S = 30.0
# A build says much, and each line of the endpoint's stream tells of it again.
MOST_LINES, MOST_LINE_LENGTH = 30, 200
_MOST_LINE_BYTES = 2**20
ENDED = "ended before it was done; nothing was exported"


class ExportedObject(TypedDict):
    """What came of it, as `nbserve export --json` says it."""

    name: str
    version: str
    path: str
    files: int
    size_bytes: int
    proven: int
    proof: str
    image: str | None
    image_bytes: int | None
    notes: list[str]
    commands: list[str]


class ExportStatus(TypedDict):
    """An export: where to and how, what it said last, and in the end `error`, or in the place of all that `result`."""

    directory: str
    build: str | None
    gpu: bool | None
    began_s: float
    is_running: bool
    lines: list[str]
    result: ExportedObject | None
    error: str | None


@dataclass(frozen=True)
class ExportOrder:
    """`directory` is absolute; `build` is an image's tag, `gpu` None as the endpoint's settings say."""

    directory: Path
    build: str | None = None
    gpu: bool | None = None

    def words(self) -> list[str]:
        """The options of the command line."""
        build = [] if self.build is None else [f"--build={self.build}"]
        return build if self.gpu is None else [*build, "--gpu" if self.gpu else "--no-gpu"]


class Export:
    """One export in a process of its own, which ends with this server."""

    def __init__(self, name: str, order: ExportOrder, process: Process) -> None:
        self._name = name
        self._order = order
        self._process = process
        self._began_s = time.time()
        self._lines: deque[str] = deque(maxlen=MOST_LINES)
        self._result: ExportedObject | None = None
        self._error: str | None = None
        self._was_ended = False
        self._running = asyncio.create_task(self._run())

    @classmethod
    async def start(cls, name: str, server_id: str, order: ExportOrder) -> Export:
        words = ["nbserve", "export", "--json", "--until-stdin-ends", "--server", server_id, *order.words()]
        process = await start_child(*words, "--", name, str(order.directory), most_line_bytes=_MOST_LINE_BYTES)
        return cls(name, order, process)

    @property
    def is_running(self) -> bool:
        return not self._running.done()

    def status(self) -> ExportStatus:
        return ExportStatus(
            directory=str(self._order.directory),
            build=self._order.build,
            gpu=self._order.gpu,
            began_s=self._began_s,
            is_running=self.is_running,
            lines=list(self._lines),
            result=self._result,
            error=self._error,
        )

    def end(self) -> None:
        """Let it take away what it wrote, and end; done a moment later."""
        self._was_ended = True
        with suppress(ProcessLookupError):
            self._process.terminate()

    async def ended(self) -> None:
        """Until it has ended; one that does not is killed."""
        _, late = await asyncio.wait({self._running}, timeout=STOP_LIMIT_S)
        if late:
            with suppress(ProcessLookupError):
                self._process.kill()
            await asyncio.wait(late)

    async def _run(self) -> None:
        assert self._process.stderr is not None
        reading = asyncio.create_task(self._process.stderr.read())
        await self._follow()
        complaint = (await reading).decode(errors="replace").strip().splitlines()
        await self._process.wait()
        if self._result is None and self._error is None:
            self._error = ENDED
            if not self._was_ended:
                said = complaint[-1] if complaint else "it said nothing"
                logger.error("the export ended: %s", said, extra={"endpoint": self._name})
                self._error = f"{ENDED}: {said}"

    async def _follow(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said: dict[str, Any] = orjson.loads(line)
            if said["event"] == "progress":
                self._lines.append(said["text"][:MOST_LINE_LENGTH])
            elif said["event"] == "exported":
                self._result = said["exports"][0]
                self._lines.clear()
            else:
                self._error = said["message"]


class Exports:
    """The exports of one endpoint: one at a time, of which the last is remembered."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._last: Export | None = None
        self._lock = asyncio.Lock()
        self._is_closed = False

    def status(self) -> ExportStatus | None:
        return self._last.status() if self._last is not None else None

    async def start(self, server_id: str, order: ExportOrder) -> None:
        """Begin one; raises Conflict while another goes on."""
        async with self._lock:
            if self._is_closed:
                raise Unavailable(f"endpoint {self._name} is stopping")
            if self._last is not None and self._last.is_running:
                where = self._last.status()["directory"]
                raise Conflict(f"{self._name} is being exported to {where}: wait for that, or end it")
            self._last = await Export.start(self._name, server_id, order)

    async def stop(self) -> None:
        """End the one that goes on, if there is one; nothing is left of it."""
        async with self._lock:
            if self._last is not None and self._last.is_running:
                self._last.end()
                await self._last.ended()

    async def close(self) -> None:
        """The endpoint is stopping."""
        self._is_closed = True
        await self.stop()

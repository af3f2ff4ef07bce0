"""The server's side of the nursery: starts it, asks it for workers, hears which of them ended. Server process."""

from __future__ import annotations

import array
import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from nbserve.errors import StartError
from nbserve.server.logbook import OutputPipe, logger

MAX_MESSAGE_BYTES = 256 * 1024
END_GRACE_S = 4.0
URGENT_GRACE_S = 0.5
OnExit = Callable[[int], None]


class Nursery:
    """One nursery process. When it ends, every worker it forked ends with it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_end: Callable[[Nursery], None]) -> None:
        self._loop = loop
        self._on_end = on_end
        self._ids = itertools.count(1)
        self._started: dict[int, asyncio.Future[int]] = {}
        self._exits: dict[int, OnExit] = {}
        self._preimported: asyncio.Future[dict[str, Any]] | None = None
        self.ready: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        self._last_line = ""
        log_read, log_write = os.pipe()
        with theirs, os.fdopen(log_write, "wb") as log:
            # Its own session, so that Ctrl-C in the terminal reaches the server alone.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "nbserve.worker.nursery", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._output = loop.create_task(
            loop.connect_read_pipe(lambda: OutputPipe(self._log), os.fdopen(log_read, "rb", 0))
        )
        loop.add_reader(self._socket.fileno(), self._read)

    @property
    def has_workers(self) -> bool:
        return bool(self._exits or self._started)

    async def start_worker(self, spec: dict[str, Any], fds: Sequence[int], on_exit: OnExit) -> int:
        """Fork a worker that gets `fds` (channel, log); gives its pid. `on_exit` gets the wait status when it ends."""
        number = next(self._ids)
        started: asyncio.Future[int] = self._loop.create_future()
        self._started[number] = started
        self._exits[number] = on_exit
        self._send({"op": "start", "id": number, "spec": spec}, fds)
        return await started

    async def preimport(self, modules: Sequence[str]) -> dict[str, Any]:
        """Import modules in the nursery; gives its answer: errors by module, threads afterwards."""
        self._preimported = self._loop.create_future()
        self._send({"op": "preimport", "modules": list(modules)})
        return await self._preimported

    async def stop(self, grace_s: float = END_GRACE_S) -> None:
        """End the nursery and with it the workers that are left; done when the process is gone."""
        self._disconnect()
        try:
            await self._loop.run_in_executor(None, self._process.wait, grace_s)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            await self._loop.run_in_executor(None, self._process.wait)

    def _log(self, line: str) -> None:
        logger.info("nursery: %s", line)
        self._last_line = line or self._last_line

    def _send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._socket.sendmsg([orjson.dumps(message)], rights)
        except OSError as error:
            raise StartError(f"the nursery process cannot be reached: {error}") from None

    def _read(self) -> None:
        try:
            message = self._socket.recv(MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            message = b""
        if message:
            self._hear(orjson.loads(message))
        else:
            self._disconnect()
            self._loop.run_in_executor(None, self._process.wait)
            self._on_end(self)

    def _hear(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "ready":
                self.ready.set_result(event)
            case "started":
                _resolve(self._started.pop(event["id"]), event["pid"])
            case "exited":
                if (started := self._started.pop(event["id"], None)) is not None:
                    started.set_exception(StartError(event.get("error", "the worker ended while it was forked")))
                self._exits.pop(event["id"])(event["status"])
            case "preimported" if self._preimported is not None:
                _resolve(self._preimported, event)
            case other:
                logger.error("the nursery said %r, which the server does not know", other)

    def _disconnect(self) -> None:
        """Stop listening; whoever waits hears that the nursery is gone."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        error = StartError(f"the nursery process, which imports torch and forks workers, ended: {self._last_line}")
        for future in (self.ready, self._preimported, *self._started.values()):
            if future is not None and not future.done():
                future.set_exception(error)
                future.exception()
        exits, self._exits, self._started = self._exits, {}, {}
        for on_exit in exits.values():
            on_exit(signal.SIGKILL)


class NurseryClient:
    """The nursery that forks new workers now, and earlier ones that are kept while a worker of theirs lives."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._retired: list[Nursery] = []
        self._imported: set[str] = set()
        self._unsafe: set[str] = set()
        self._lock = asyncio.Lock()
        self._is_stopping = False
        self._current = Nursery(loop, self._ended)

    @property
    def pid(self) -> int:
        return self._current.pid

    async def ready(self) -> dict[str, Any]:
        """Wait until torch is imported; gives the versions the nursery found. Raises StartError when it cannot be."""
        return await asyncio.shield(self._current.ready)

    async def start_worker(self, spec: dict[str, Any], fds: Sequence[int], on_exit: OnExit) -> int:
        """Fork a worker; see Nursery.start_worker."""
        await self.ready()
        return await self._current.start_worker(spec, fds, on_exit)

    async def preimport(self, modules: Sequence[str]) -> None:
        """Import third-party modules in the nursery, so that workers that need them start at once."""
        async with self._lock:
            wanted = [name for name in modules if name not in self._imported | self._unsafe]
            if not wanted:
                return
            await self.ready()
            answer = await self._current.preimport(wanted)
            self._imported.update(wanted)
            for module, text in answer["errors"].items():
                logger.warning("the nursery could not import %s: %s", module, text)
            if answer["threads"] > 1:
                logger.info("%s starts threads when imported: workers import it themselves", ", ".join(wanted))
                self._unsafe.update(wanted)
                await self._replace()

    async def _replace(self) -> None:
        """Forking beside threads is unsafe: begin anew, keep the old process for the workers it has."""
        self._retired.append(self._current)
        self._imported.clear()
        self._current = Nursery(self._loop, self._ended)
        for nursery in [n for n in self._retired if not n.has_workers]:
            self._retired.remove(nursery)
            await nursery.stop()
        await self.ready()

    async def stop(self, is_urgent: bool = False) -> None:
        self._is_stopping = True
        grace_s = URGENT_GRACE_S if is_urgent else END_GRACE_S
        await asyncio.gather(*(nursery.stop(grace_s) for nursery in (self._current, *self._retired)))

    def _ended(self, nursery: Nursery) -> None:
        logger.error("the nursery process %d ended", nursery.pid)
        if nursery in self._retired:
            self._retired.remove(nursery)
        elif nursery.ready.exception() is None and not self._is_stopping:
            # One that never got ready would only fail again.
            self._imported.clear()
            self._current = Nursery(self._loop, self._ended)


def _resolve(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)

"""A supervisor and versions without processes: their workers say what a test wants said."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from nbserve import wire
from nbserve.config import EndpointConfig
from nbserve.server.failures import Failures
from nbserve.server.machine import Machine
from nbserve.server.metrics import Metrics
from nbserve.server.own_request import OwnRequest, make_meta
from nbserve.server.placement import DeviceSlots, Placement
from nbserve.server.spans import SpanStore
from nbserve.server.supervisor import Supervisor
from nbserve.server.version import Surroundings, Version

LIMIT_S = 5.0
# No process has a number as high as these (Linux).
PIDS = itertools.count(1 << 22)
HELD = {"reason": "breakpoint", "file": "cell 1", "line": 7, "function": "preprocess", "wait_s": 120}


class Script:
    """The other end of a worker's channel."""

    def __init__(self, spec: dict[str, Any], channel: int, on_exit: Callable[[int], None]) -> None:
        self.spec = spec
        self.pid = next(PIDS)
        self._on_exit = on_exit
        self._socket = socket.socket(fileno=os.dup(channel))
        self._socket.setblocking(False)
        self._reader = wire.FrameReader()
        self._frames: list[tuple[int, int, memoryview]] = []

    def say(self, event: str, **values: Any) -> None:
        self._socket.sendall(wire.encode_message(wire.EVENT, {"event": event, **values}))

    def answer(self, batch: wire.Batch, status: int = 200, stamps: wire.Stamps | None = None) -> None:
        rows = [wire.Result(status, b"", b"1")] * len(batch.rows)
        self._socket.sendall(b"".join(wire.encode_results(batch.batch_id, stamps or wire.Stamps(), rows)))

    async def batch(self) -> wire.Batch:
        _, count, payload = await self._next(wire.BATCH)
        return wire.decode_batch(count, payload)

    async def told(self, op: str) -> dict[str, Any]:
        """The next message of that kind; others are skipped."""
        while (message := wire.decode_message((await self._next(wire.CONTROL))[2]))["op"] != op:
            pass
        return message

    def exit(self, status: int = 0) -> None:
        self.hang_up()
        self._on_exit(status)

    def fileno(self) -> int:
        return self._socket.fileno()

    def hang_up(self) -> None:
        self._socket.close()

    async def _next(self, kind: int) -> tuple[int, int, memoryview]:
        loop = asyncio.get_running_loop()
        while True:
            for position, frame in enumerate(self._frames):
                if frame[0] == kind:
                    return self._frames.pop(position)
            data = await asyncio.wait_for(loop.sock_recv(self._socket, 65536), LIMIT_S)
            assert data, "the server hung up"
            self._frames += self._reader.feed(data)


class Stage:
    """A supervisor whose nursery starts scripts, and versions on it."""

    def __init__(self, machine: Machine) -> None:
        self.scripts: list[Script] = []
        self.machine = machine
        self.slots = DeviceSlots(machine.cores)
        self.failures = Failures()
        self.supervisor = Supervisor(asyncio.get_running_loop(), cast("Any", self))

    async def start_worker(self, spec: dict[str, Any], fds: list[int], on_exit: Callable[[int], None]) -> int:
        self.scripts.append(Script(spec, fds[0], on_exit))
        return self.scripts[-1].pid

    def version(self, **settings: Any) -> Version:
        around = Surroundings(
            name="h",
            id_prefix="ab",
            supervisor=self.supervisor,
            placement=Placement(self.machine),
            slots=self.slots,
            spans=SpanStore(),
            metrics=Metrics(lambda: 0).endpoint("h"),
            on_change=lambda: None,
            failures=self.failures,
        )
        bundle = SimpleNamespace(path=Path("bundle"), version="1234")
        return Version(cast("Any", bundle), EndpointConfig().changed(settings), around)

    async def serve(self, **settings: Any) -> tuple[Version, list[Script]]:
        """A version that serves, and its workers' scripts."""
        version, before = self.version(**settings), len(self.scripts)
        starting = asyncio.ensure_future(version.start(lambda text: None))
        await self.started(before + version.config.workers)
        await starting
        version.serve()
        return version, self.scripts[before:]

    async def started(self, count: int) -> Script:
        """Wait until so many workers were started in all; gives the last one, which says it is ready."""
        ready = len(self.scripts)
        await until(lambda: len(self.scripts) >= count)
        for script in self.scripts[ready:]:
            script.say("ready")
        return self.scripts[-1]

    async def close(self) -> None:
        """Hang up, and give the server's ends the turns of the loop that they need to be closed."""
        await self.supervisor.close()
        for script in self.scripts:
            script.hang_up()
        for _ in range(5):
            await asyncio.sleep(0)


async def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline, "the condition never came true"
        await asyncio.sleep(0.002)


def play(scene: Callable[[Stage], Awaitable[None]], gpus: int = 0) -> None:
    async def run() -> None:
        stage = Stage(Machine(cores=4, gpus=gpus))
        try:
            await scene(stage)
        finally:
            await stage.close()

    asyncio.run(run())


def request() -> OwnRequest:
    return OwnRequest(make_meta("application/json"), b"1")


def recorded(script: Script, batches: list[int], **changes: Any) -> dict[str, Any]:
    """What a worker says it has recorded."""
    now_ns = time.monotonic_ns()
    return {
        "index": script.spec["worker_index"],
        "pid": script.pid,
        "device": "cpu",
        "threads": 1,
        "batches": batches,
        "started_ns": now_ns - 10**9,
        "ended_ns": now_ns,
        "epoch_offset_ns": 0,
        "trace": "w0.trace.json",
        "samples": None,
        "memory": None,
        "facts": {},
        "error": None,
        **changes,
    }

"""What a batch costs a worker by itself, without a server and a network: workers side by side, in short turns."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import bundles
from benchmarks.workloads import examples
from nbserve import debugwire, wire
from nbserve.worker.spec import WorkerSpec

ROWS = 8
BATCHES, TURNS = 50, 100
START_S = 60.0
META = b"\0application/json\0"


@dataclass(frozen=True)
class LoneKind:
    """What a worker runs, whether it has the agent, and where, under which condition, a debugger waits to stop."""

    has_agent: bool = False
    stop: tuple[str, str] | None = None
    workload: str = "echo"


class LoneWorker:
    """One worker of an endpoint without a server. Use it as a context manager."""

    def __init__(self, kind: LoneKind) -> None:
        self._stack = ExitStack()
        self._kind = kind
        self._frames = wire.FrameReader()
        rows = [(number, META, body) for number, body in enumerate(examples(kind.workload, ROWS))]
        self._batch = wire.encode_batch(1, rows)

    def __enter__(self) -> LoneWorker:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nbb-worker-")))
            path = str(folder / "w.sock") if self._kind.has_agent else None
            self._channel, theirs = socket.socketpair()
            stack.callback(self._channel.close)
            self._channel.settimeout(START_S)
            self._start(theirs, path, stack)
            self._await("ready")
            if self._kind.stop is not None:
                _arm(str(path), *self._kind.stop, stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def batch_us(self, count: int = BATCHES) -> float:
        """Microseconds for each of so many batches that were sent together."""
        batches = b"".join(self._batch) * count
        began_ns = time.perf_counter_ns()
        self._channel.sendall(batches)
        self._receive_results(count)
        return (time.perf_counter_ns() - began_ns) / count / 1e3

    def order_us(self, op: str, until: str, **values: object) -> float:
        """Microseconds until the worker has sent the event `until`, which says that it did what it was told."""
        began_ns = time.perf_counter_ns()
        self._channel.sendall(wire.encode_message(wire.CONTROL, {"op": op, **values}))
        self._await(until)
        return (time.perf_counter_ns() - began_ns) / 1e3

    def _start(self, theirs: socket.socket, debug_socket: str | None, stack: ExitStack) -> None:
        bundle = str(bundles.write(self._kind.workload))
        spec = WorkerSpec(bundle, "bench", "1", max_batch_size=ROWS, debug_socket=debug_socket)
        with theirs, Path(os.devnull).open("wb") as log:
            fds = (theirs.fileno(), log.fileno())
            command = [sys.executable, "-m", "nbserve.worker", *map(str, fds), json.dumps(spec.as_json())]
            process = subprocess.Popen(command, pass_fds=fds)
        stack.callback(process.wait)
        stack.callback(process.kill)

    def _receive_results(self, count: int) -> None:
        while count:
            count -= sum(kind == wire.RESULTS for kind, _, _ in self._frames.feed(_received(self._channel)))

    def _await(self, event: str) -> None:
        said: list[str] = []
        while event not in said:
            frames = self._frames.feed(_received(self._channel))
            said = [wire.decode_message(payload)["event"] for kind, _, payload in frames if kind == wire.EVENT]


def _arm(path: str, at: str, condition: str, stack: ExitStack) -> None:
    """A debugger that stays attached until the stack ends."""
    link = stack.enter_context(socket.socket(socket.AF_UNIX))
    link.settimeout(START_S)
    link.connect(path)
    link.sendall(debugwire.encode({"cmd": "hello", "protocol": debugwire.PROTOCOL, "who": "the benchmark"}))
    link.sendall(debugwire.encode({"cmd": "stop", "at": at, "if": condition, "repeat": True}))
    reader, is_armed = debugwire.LineReader(), False
    while not is_armed:
        is_armed = any(event["event"] == "armed" for event in reader.feed(_received(link)))


def _received(end: socket.socket) -> bytes:
    data = end.recv(1 << 20)
    if not data:
        raise RuntimeError("the worker has ended")
    return data


def medians_us(kinds: Sequence[LoneKind]) -> list[float]:
    """The median microseconds of a batch in a worker of each kind: all are up, and take short turns."""
    with ExitStack() as stack:
        workers = [stack.enter_context(LoneWorker(kind)) for kind in kinds]
        turns = [[worker.batch_us() for worker in workers] for _ in range(TURNS)]
    return [statistics.median(times_us) for times_us in zip(*turns, strict=True)]

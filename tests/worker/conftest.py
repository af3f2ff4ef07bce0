"""A real nursery and its workers, driven over their sockets as the server drives them."""

from __future__ import annotations

import itertools
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from nbserve import debugwire, wire
from nbserve.bundle.bundle import Bundle, fingerprint
from nbserve.handler import Context
from nbserve.worker.decode import decode_row
from nbserve.worker.metrics import UserMetrics
from nbserve.worker.runner import Outcome, Runner
from nbserve.worker.stages import pipeline_of

MANIFEST = '{"files": {}, "objects": {}, "tensors": [], "arrays": [], "checks": []}'
DEADLINE_S = 30.0
# CI has it, so that there it is an error if it is not found.
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and not os.environ.get("CI"), reason="inductor needs g++ to compile"
)
JSON = b"\0application/json\0"
ECHO = """
import nbserve.handler as nbserve

class Echo(nbserve.Handler):
    def handle(self, requests, context):
        return requests
"""


def _tells(name: str, kind: int, payload: memoryview) -> bool:
    return kind == wire.EVENT and bool(wire.decode_message(payload)["event"] == name)


class WorkerDriver:
    """The server's end of one worker."""

    def __init__(self, number: int, channel: socket.socket, log_fd: int) -> None:
        self.number = number
        self.pid = 0
        self.channel = channel
        self.channel.settimeout(DEADLINE_S)
        self._log_fd = log_fd
        self._log = ""
        self._reader = wire.FrameReader()
        self._frames: deque[tuple[int, int, memoryview]] = deque()
        self._batch_ids = itertools.count(1)
        self.dropped: list[int] = []
        self.sent = self.answers = 0

    def frame(self) -> tuple[int, int, memoryview] | None:
        """The next frame, None when the worker closed its end."""
        while not self._frames:
            try:
                data = self.channel.recv(1 << 20)
            except ConnectionResetError:
                return None
            if not data:
                return None
            frames = list(self._reader.feed(data))
            self._frames.extend(frames)
            for kind, _, payload in frames:
                if kind == wire.EVENT and wire.decode_message(payload)["event"] == "held":
                    # As the server does, at once.
                    self.tell("hold_taken", dropped=self.dropped)
        return self._frames.popleft()

    def event(self) -> dict[str, Any]:
        frame = self.frame()
        assert frame is not None, self.log()
        assert frame[0] == wire.EVENT
        return wire.decode_message(frame[2])

    def results(self) -> wire.Results:
        frame = self.frame()
        assert frame is not None, self.log()
        kind, count, payload = frame
        assert kind == wire.RESULTS, bytes(payload)
        return wire.decode_results(count, payload)

    def hear(self, name: str) -> dict[str, Any]:
        """The next event of this name; frames before it stay."""

        return wire.decode_message(self._next(lambda kind, payload: _tells(name, kind, payload))[2])

    def forget(self, name: str) -> None:
        """Drop events of this name that were skipped."""
        kept = [frame for frame in self._frames if not _tells(name, frame[0], frame[2])]
        self._frames.clear()
        self._frames.extend(kept)

    def answer(self) -> tuple[int, Any]:
        """Status and body of the first row of the next results; events before them stay."""
        _, count, payload = self._next(lambda kind, payload: kind == wire.RESULTS)
        self.answers += 1
        row = wire.decode_results(count, payload).rows[0]
        return row.status, orjson.loads(row.body)

    def _next(self, is_wanted: Callable[[int, memoryview], bool]) -> tuple[int, int, memoryview]:
        seen: list[tuple[int, int, memoryview]] = []
        while (frame := self.frame()) is not None and not is_wanted(frame[0], frame[2]):
            seen.append(frame)
        assert frame is not None, self.log()
        self._frames.extendleft(reversed(seen))
        return frame

    def send(self, *bodies: bytes, meta: bytes = JSON) -> int:
        batch_id = next(self._batch_ids)
        self.sent += 1
        rows = [(batch_id * 100 + index, meta, body) for index, body in enumerate(bodies)]
        self.channel.sendall(b"".join(wire.encode_batch(batch_id, rows)))
        return batch_id

    def ask(self, *values: Any) -> list[Any]:
        """The answers to JSON values, one batch of them."""
        self.send(*map(orjson.dumps, values))
        return [orjson.loads(row.body) for row in self.results().rows]

    def tell(self, op: str, **values: Any) -> None:
        self.channel.sendall(wire.encode_message(wire.CONTROL, {"op": op, **values}))

    def log(self) -> str:
        while select.select([self._log_fd], [], [], 0)[0] and (data := os.read(self._log_fd, 65536)):
            self._log += data.decode()
        return self._log

    def wait_for_log(self, text: str) -> str:
        wait_until(lambda: text in self.log(), f"{text!r} in the log")
        return self._log

    def close(self) -> None:
        self.channel.close()
        os.close(self._log_fd)


class NurseryDriver:
    """The server's end of a nursery."""

    def __init__(self, **environment: str) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(DEADLINE_S)
        self._numbers = itertools.count(1)
        self._heard: list[dict[str, Any]] = []
        self._workers: list[WorkerDriver] = []
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "nbserve.worker.nursery", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=os.environ | environment,
            )
        self.ready = self.hear("ready")

    def hear(self, event: str, **values: Any) -> dict[str, Any]:
        """The next event of this name and with these values; others are kept for later."""
        while True:
            for heard in self._heard:
                if heard["event"] == event and values.items() <= heard.items():
                    self._heard.remove(heard)
                    return heard
            data = self._control.recv(1 << 16)
            assert data, "the nursery ended"
            self._heard.append(orjson.loads(data))

    def say(self, op: str, **values: Any) -> None:
        self._control.send(orjson.dumps({"op": op, **values}))

    def start(self, bundle: Path, **spec: Any) -> WorkerDriver:
        """Ask for a worker; does not wait until it is ready."""
        ours, theirs = socket.socketpair()
        log_read, log_write = os.pipe()
        worker = WorkerDriver(next(self._numbers), ours, log_read)
        message = {"bundle": str(bundle), "endpoint": "test", "version": "1", "id_prefix": "ab", **spec}
        data = orjson.dumps({"op": "start", "id": worker.number, "spec": message})
        socket.send_fds(self._control, [data], [theirs.fileno(), log_write])
        theirs.close()
        os.close(log_write)
        self._workers.append(worker)
        worker.pid = self.hear("started", id=worker.number)["pid"]
        return worker

    def start_ready(self, bundle: Path, **spec: Any) -> WorkerDriver:
        worker = self.start(bundle, **spec)
        event = worker.event()
        assert event["event"] == "ready", event
        return worker

    def exit_code(self, worker: WorkerDriver) -> int:
        """Wait until the worker ended; its exit code, or minus the signal that ended it."""
        return os.waitstatus_to_exitcode(self.hear("exited", id=worker.number)["status"])

    def hang_up(self) -> None:
        self._control.close()

    def forget_workers(self) -> None:
        """Close what the test used, which ends its workers."""
        for worker in self._workers:
            worker.close()
        self._workers.clear()

    def end(self) -> None:
        self.forget_workers()
        self.hang_up()
        self.process.wait(DEADLINE_S)


def wait_until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)


@pytest.fixture(scope="session")
def shared_nursery(runtime_dir: Path) -> Iterator[NurseryDriver]:
    nursery = NurseryDriver()
    yield nursery
    nursery.end()


@pytest.fixture
def nursery(shared_nursery: NurseryDriver) -> Iterator[NurseryDriver]:
    """A nursery that other tests use too; the workers a test starts end with it."""
    yield shared_nursery
    shared_nursery.forget_workers()


@pytest.fixture
def own_nursery() -> Iterator[Callable[..., NurseryDriver]]:
    """Starts a nursery for one test, which may break it."""
    started: list[NurseryDriver] = []

    def start(**environment: str) -> NurseryDriver:
        started.append(NurseryDriver(**environment))
        return started[-1]

    yield start
    for nursery in started:
        nursery.end()


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., Path]:
    """Writes a bundle with the given source; the handler is the last class in it."""

    def write(source: str = ECHO, name: str = "bundle") -> Path:
        folder = tmp_path / name
        (folder / "model").mkdir(parents=True)
        source = textwrap.dedent(source)
        handler = "app:" + source.rpartition("\nclass ")[2].partition(":")[0].partition("(")[0]
        (folder / "app.py").write_text(source)
        (folder / "requirements.txt").touch()
        (folder / "model" / "manifest.json").write_text(MANIFEST)
        Bundle(folder, "test", fingerprint(folder, handler), handler).write_head()
        return folder

    return write


class DebugClient:
    """One connection to a worker's agent."""

    def __init__(self, path: str, who: str = "a test") -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(DEADLINE_S)
        with debugwire.address(path) as address:
            self._socket.connect(address)
        self._reader = debugwire.LineReader()
        self._events: deque[dict[str, Any]] = deque()
        self.shown = ""
        self.notes: list[str] = []
        self.say("hello", protocol=debugwire.PROTOCOL, who=who)
        self.hello = self.event("hello")

    def say(self, cmd: str, **values: Any) -> None:
        self._socket.sendall(debugwire.encode({"cmd": cmd, **values}))

    def next(self) -> dict[str, Any] | None:
        """The next event, None when the agent hung up."""
        while not self._events:
            data = self._socket.recv(65536)
            if not data:
                return None
            self._events.extend(self._reader.feed(data))
        return self._events.popleft()

    def event(self, name: str) -> dict[str, Any]:
        """The next event of this name; output and notes before it are collected in `shown` and `notes`."""
        while (event := self.next()) is not None:
            if event["event"] == name:
                return event
            if event["event"] == "out":
                self.shown += event["text"]
            elif event["event"] == "note":
                self.notes.append(event["text"])
            else:
                assert event["event"] in ("resumed", "held", "armed"), event
        raise AssertionError(f"the agent hung up before {name}; shown: {self.shown}")

    def prompt(self) -> str:
        """Wait for the prompt; what was shown before it."""
        self.shown = ""
        self.last_prompt = self.event("prompt")["text"]
        return self.shown

    def reply(self, text: str) -> str:
        """Answer a prompt; what is shown until the next one."""
        self.say("reply", text=text)
        return self.prompt()

    def last_reply(self, text: str, event: str = "ended") -> dict[str, Any]:
        """Answer a prompt after which no other comes, but `event`."""
        self.shown = ""
        self.say("reply", text=text)
        return self.event(event)

    def read_something(self) -> None:
        """Wait for whatever comes, or for the end."""
        self._socket.recv(65536)

    def close(self) -> None:
        self._socket.close()


class AgentOfTest:
    """The agent of a test's worker, by its socket."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._clients: list[DebugClient] = []

    def client(self, who: str = "a test") -> DebugClient:
        """A debugger that said hello."""
        self._clients.append(DebugClient(self.path, who))
        return self._clients[-1]

    def close(self) -> None:
        for client in self._clients:
            client.close()


@pytest.fixture
def agent_of(tmp_path: Path) -> Iterator[AgentOfTest]:
    """Where a worker's agent listens when it is started with `debug_socket=agent_of.path`."""
    agent = AgentOfTest(tmp_path / "agents" / "w0-1.sock")
    yield agent
    agent.close()


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[[Callable[[], object], str], None]:
    return wait_until


@pytest.fixture
def kill() -> Callable[[int], None]:
    return lambda pid: os.kill(pid, signal.SIGKILL)


@pytest.fixture
def context() -> Context:
    return Context("/bundle", "cpu", 0, "test", "1", UserMetrics())


@pytest.fixture
def run(context: Context) -> Callable[..., Outcome]:
    """Runs bodies as one batch through a handler, all in this process."""

    def run_bodies(handler: Any, *bodies: bytes, meta: bytes = JSON, isolate_errors: bool = True) -> Outcome:
        handler.context = context
        runner = Runner(pipeline_of(handler), context, decode_row, id_prefix="ab", isolate_errors=isolate_errors)
        return runner.run(batch_of(*bodies, meta=meta))

    return run_bodies


def batch_of(*bodies: bytes, meta: bytes = JSON) -> wire.Batch:
    rows = [wire.Row(index + 16, meta, memoryview(body)) for index, body in enumerate(bodies)]
    return wire.Batch(1, rows)

"""The nursery process: imports torch once, runs none of it, and forks a worker whenever the server asks for one."""

from __future__ import annotations

import importlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import orjson

from nbserve.worker import process
from nbserve.worker.spec import WorkerSpec
from nbserve.worker.start import fork_worker, spawn_worker

MAX_MESSAGE_BYTES = 256 * 1024
END_GRACE_S = 2.0
IMPORTS = (
    "torch",
    "numpy.random",
    "safetensors.torch",
    "nbserve.handler",
    "nbserve.bundle.load",
    "nbserve.bundle.mapped",
    "nbserve.worker.worker",
)


class Nursery:
    """Starts workers and tells the server when they end. Ends them all when the server hangs up."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._workers: dict[int, int] = {}
        self._wakeup, self._wakeup_end = socket.socketpair()

    def run(self) -> None:
        """Serve the control socket until the server closes it."""
        self._listen_for_exits()
        while self._step():
            pass
        self._end_workers()

    def say(self, event: str, **values: Any) -> None:
        # A server that hung up is noticed by the next read.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._control.send(orjson.dumps({"event": event, **values}))

    def _listen_for_exits(self) -> None:
        for end in (self._wakeup, self._wakeup_end):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup_end.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _step(self) -> bool:
        """Wait for a message or the end of a worker and deal with it; False when the server hung up."""
        readable, _, _ = select.select([self._control, self._wakeup], [], [])
        if self._wakeup in readable:
            self._reap()
        return self._control not in readable or self._take_message()

    def _take_message(self) -> bool:
        flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        try:
            data, fds, _, _ = socket.recv_fds(self._control, MAX_MESSAGE_BYTES, 4, flags)
        except ConnectionResetError:
            return False
        if not data:
            return False
        message = orjson.loads(data)
        if message["op"] == "start":
            self._start(message["id"], WorkerSpec.from_json(message["spec"]), fds)
        elif message["op"] == "preimport":
            self._preimport(message["modules"])
        return True

    def _start(self, number: int, spec: WorkerSpec, fds: Iterable[int]) -> None:
        channel_fd, log_fd = fds
        start = self._fork if start_method(process.thread_count()) == "fork" else spawn_worker
        try:
            pid = start(spec, channel_fd, log_fd)
        except OSError as error:
            self.say("exited", id=number, pid=None, status=1 << 8, error=f"no process could be started: {error}")
        else:
            self._workers[pid] = number
            self.say("started", id=number, pid=pid)
        finally:
            # The worker alone holds its channel: the server must see it close when the worker ends.
            os.close(channel_fd)
            os.close(log_fd)

    def _fork(self, spec: WorkerSpec, channel_fd: int, log_fd: int) -> int:
        return fork_worker(spec, channel_fd, log_fd, leave_nursery=self._close)

    def _close(self) -> None:
        for end in (self._control, self._wakeup, self._wakeup_end):
            end.close()

    def _preimport(self, modules: list[str]) -> None:
        began = time.monotonic()
        errors = {name: text for name in modules if (text := import_error(name))}
        process.freeze_memory()
        seconds = time.monotonic() - began
        self.say("preimported", modules=modules, errors=errors, threads=process.thread_count(), seconds=seconds)

    def _reap(self) -> None:
        with suppress(BlockingIOError):
            self._wakeup.recv(4096)
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self._report_end(*ended)

    def _report_end(self, pid: int, status: int) -> None:
        # What the handler started itself must not outlive its worker.
        _signal_group(pid, signal.SIGKILL)
        number = self._workers.pop(pid, None)
        if number is not None:
            self.say("exited", id=number, pid=pid, status=status)

    def _end_workers(self) -> None:
        self._signal_workers(signal.SIGTERM)
        deadline = time.monotonic() + END_GRACE_S
        while self._workers and (left_s := deadline - time.monotonic()) > 0:
            select.select([self._wakeup], [], [], left_s)
            self._reap()
        self._signal_workers(signal.SIGKILL)
        for pid in list(self._workers):
            self._report_end(*os.waitpid(pid, 0))

    def _signal_workers(self, number: signal.Signals) -> None:
        for pid in self._workers:
            _signal_group(pid, number)


def start_method(threads: int) -> str:
    """How to start a worker: `fork` where that is safe, else `spawn`; NBSERVE_START_METHOD decides when it is set.

    A fork beside other threads can inherit a lock that nobody will open again, and macOS libraries do not survive one.
    """
    chosen = os.environ.get("NBSERVE_START_METHOD", "")
    if chosen in ("fork", "spawn"):
        return chosen
    return "fork" if sys.platform == "linux" and threads == 1 else "spawn"


def import_error(module: str) -> str | None:
    """Import a module; gives what went wrong in one line, None when nothing did."""
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def main(arguments: list[str]) -> None:
    """Run the nursery on the control socket whose descriptor is the only argument."""
    process.die_with_parent(os.getppid())
    process.set_name("nbserve-nursery")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # numpy's library starts its threads when it is imported, and a fork must find none.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    began = time.monotonic()
    for name in IMPORTS:
        importlib.import_module(name)
    process.freeze_memory()
    import torch

    control = socket.socket(fileno=int(arguments[0]))
    control.set_inheritable(False)
    nursery = Nursery(control)
    import_s = time.monotonic() - began
    nursery.say("ready", pid=os.getpid(), torch=torch.__version__, cuda=torch.version.cuda, import_s=import_s)
    nursery.run()


if __name__ == "__main__":
    main(sys.argv[1:])

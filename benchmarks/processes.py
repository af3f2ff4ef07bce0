"""A server under test: started below a reaper, awaited, frozen while others run, stopped and checked to be gone."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import psutil

ROOT = Path(__file__).resolve().parent.parent
REAPER = Path(__file__).resolve().parent / "reaper.py"
STOP_S = 10.0


class NotStarted(Exception):
    """The server ended or never answered; the text carries the last line of its log."""


class ServerProcess:
    """The processes of one server. Use it as a context manager: leaving it leaves no process and no file."""

    def __init__(self, command: list[str], environment: Mapping[str, str], scratch: Path | None = None) -> None:
        self.scratch = scratch or Path(tempfile.mkdtemp(prefix="nbb-"))
        self.log = self.scratch / "server.log"
        self.started_s = time.perf_counter()
        with self.log.open("ab") as log:
            self._reaper = subprocess.Popen(
                [sys.executable, "-S", "-E", str(REAPER), *command],
                cwd=self.scratch,
                env={**os.environ, **environment, "TMPDIR": str(self.scratch)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def processes(self) -> list[psutil.Process]:
        """All processes of the server, without the reaper."""
        try:
            return psutil.Process(self._reaper.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def wait_until_answers(self, port: int, path: str, body: bytes, content_type: str, timeout_s: float) -> float:
        """Seconds from the start to the first answer 200 to a real request."""
        deadline_s = self.started_s + timeout_s
        while time.perf_counter() < deadline_s:
            if self._reaper.poll() is not None:
                raise NotStarted(f"it ended at its start: {self.last_line()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if post(port, path, body, content_type)[0] == 200:
                    return time.perf_counter() - self.started_s
            time.sleep(0.01)
        raise NotStarted(f"no answer 200 within {timeout_s:.0f} s: {self.last_line()}")

    def last_line(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1][-300:] if lines else "its log is empty"

    def freeze(self) -> None:
        """Stops every process of the server, so that it takes nothing from the one that is measured."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def cpu_s(self) -> float:
        """CPU seconds that the server's living processes have used so far."""
        used_s = 0.0
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                used_s += times.user + times.system
        return used_s

    def stop(self) -> None:
        """Ends all processes and removes the files; raises RuntimeError when a process outlives even SIGKILL."""
        self.thaw()
        left = self.processes()
        self._reaper.terminate()
        try:
            # A peer that does not end must not end the whole benchmark.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._reaper.wait(STOP_S)
        finally:
            left += self.processes()
            self._reaper.kill()
            self._reaper.wait()
            shutil.rmtree(self.scratch, ignore_errors=True)
        for process in filter(_is_alive, left):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _, alive = psutil.wait_procs(left, timeout=STOP_S)
        if alive := [process for process in alive if _is_alive(process)]:
            raise RuntimeError(f"processes outlived their server: {alive}")

    def _signal(self, number: signal.Signals) -> None:
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)


def post(port: int, path: str, body: bytes, content_type: str, timeout_s: float = 30.0) -> tuple[int, bytes]:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("POST", path, body, {"Content-Type": content_type})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

"""A server as a container has it: nothing of the user's environment, folders or modules. Kernel or terminal."""

from __future__ import annotations

import os
import re
import signal
import site
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from nbserve import runfile
from nbserve.errors import ExportError
from nbserve.replay.client import Client, address_of
from nbserve.runfile import RunFile

STOP_LIMIT_S = 60.0
LEAVE_LIMIT_S = 5.0
PING_LIMIT_S = 5.0
POLL_S = 0.02
SHOWN_CHARACTERS = 6000
_RUNTIME_DIR = "NBSERVE_RUNTIME_DIR"
# What belongs to the machine, not to the user: where programs, libraries, GPUs and certificates are.
_KEPT = re.compile(r"PATH|LANG|LC_\w+|TZ|TMPDIR|LD_LIBRARY_PATH|(CUDA|NVIDIA|ROCR|HIP)_\w+|CXX|SSL_CERT_(FILE|DIR)")


class CleanServer:
    """A server of one bundle, with folders of its own below `folder`; it ends with the block, or with this process."""

    def __init__(
        self, bundle: Path, folder: Path, options: Sequence[str], extra: Mapping[str, str] | None = None
    ) -> None:
        self._folder = folder
        self._environment = {**environment(os.environ, folder), **(extra or {})}
        for name in ("home", "cwd", "run"):
            (folder / name).mkdir(mode=0o700)
        command = [sys.executable, "-m", "nbserve", "serve", str(bundle), "--port", "0", *options]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--owner-pid", str(os.getpid())],
                cwd=folder / "cwd",
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # An interrupt of the kernel or the terminal ends the export, which ends this.
                start_new_session=True,
            )

    def __enter__(self) -> CleanServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def ready(self, limit_s: float) -> str:
        """Wait until it answers; gives its URL. Raises ExportError, with what it said, when it does not start."""
        deadline = time.monotonic() + limit_s
        while not (url := self._ready_url()):
            if self._process.poll() is not None:
                raise ExportError(self.last_words())
            if time.monotonic() > deadline:
                raise ExportError(f"it is not ready after {limit_s:g} s:\n{self.last_words()}")
            time.sleep(POLL_S)
        return url

    def stop(self) -> list[str]:
        """End it and all that it started; gives what had to be killed."""
        self._process.send_signal(signal.SIGTERM)
        killed = []
        try:
            self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            killed.append(f"the server, which did not stop within {STOP_LIMIT_S:g} s")
            self._process.kill()
            self._process.wait()
        return [*killed, *self._kill_left()]

    def last_words(self) -> str:
        """The error that it ended with, else the end of its log."""
        log = self._log.read_text(errors="replace").strip()
        _, error, text = f"\n{log}".rpartition("\nnbserve: ")
        return (text if error else log)[-SHOWN_CHARACTERS:]

    def last_failure(self) -> str:
        """What its log says of the last request that failed, with the traceback; nothing when none did."""
        _, failed, text = self._log.read_text(errors="replace").rpartition(" failed: ")
        return text.strip()[:SHOWN_CHARACTERS] if failed else ""

    @property
    def _log(self) -> Path:
        return self._folder / "server.log"

    def _ready_url(self) -> str:
        run_file = next(iter(self._run_files()), None)
        if run_file is None or run_file.url is None:
            return ""
        with Client(address_of(run_file.url)) as client:
            return "" if client.not_ready(PING_LIMIT_S) else run_file.url

    def _run_files(self) -> list[RunFile]:
        found = map(runfile.read, (self._folder / "run").glob("*.json"))
        return [run_file for run_file in found if run_file is not None]

    def _kill_left(self) -> list[str]:
        """What carries its environment, which all that it started inherits, and does not go by itself."""
        deadline = time.monotonic() + LEAVE_LIMIT_S
        while (left := _carrying(_RUNTIME_DIR, self._environment[_RUNTIME_DIR])) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        names = [_name(process) for process in left]
        for process in left:
            _kill(process)
        return names


def environment(user: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Of a user's environment what a container has too, and folders of its own."""
    kept = {name: value for name, value in user.items() if _KEPT.fullmatch(name)}
    own = {
        "HOME": str(folder / "home"),
        "XDG_CACHE_HOME": str(folder / "home" / "cache"),
        _RUNTIME_DIR: str(folder / "run"),
        "PYTHONUNBUFFERED": "1",
        # Nothing is added to the bundle.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if site.ENABLE_USER_SITE:
        # It is found by HOME; what is installed there is in the requirements too.
        own["PYTHONUSERBASE"] = str(site.getuserbase())
    return kept | own


def _carrying(name: str, value: str) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if _environment_of(process).get(name) == value]


def _environment_of(process: psutil.Process) -> dict[str, Any]:
    try:
        return {} if process.status() == psutil.STATUS_ZOMBIE else process.environ()
    except psutil.Error:
        return {}


def _name(process: psutil.Process) -> str:
    try:
        return f"{' '.join(process.cmdline())[:100]} (pid {process.pid})"
    except psutil.Error:
        return f"pid {process.pid}"


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
        process.wait(LEAVE_LIMIT_S)
    except psutil.Error:
        pass  # It went by itself.

"""Run files: how a kernel, the command line and the Jupyter extension find running servers. Used by all processes."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from nbserve.errors import NbserveError


@dataclass(frozen=True)
class RunFile:
    """What a server tells about itself; kept as `SERVER_ID.json`, mode 0600, in the runtime directory.

    `started_s` is the process's start time (seconds since the epoch), so that a reused pid is not taken for the server.
    `owner_pid` is the kernel it ends with, None when detached.
    """

    server_id: str
    pid: int
    started_s: float
    url: str | None
    management_url: str
    token: str
    owner_pid: int | None = None
    detached: bool = False
    notebook: str | None = None

    @property
    def path(self) -> Path:
        return runtime_dir() / f"{self.server_id}.json"

    @property
    def directory(self) -> Path:
        """Folder of the server's log and its workers' sockets; it goes when the server ends."""
        return server_dir(self.server_id)

    def write(self) -> None:
        """Write the file whole or not at all."""
        part = self.path.with_suffix(".part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(self), file)
        part.replace(self.path)

    def is_alive(self) -> bool:
        """Whether the process that wrote this file still runs."""
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started_s) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


def runtime_dir() -> Path:
    """The user's folder for run files, mode 0700: `NBSERVE_RUNTIME_DIR`, else below `XDG_RUNTIME_DIR` or /tmp.

    Raises NbserveError when the folder belongs to somebody else or others may write to it.
    """
    directory = _configured_dir()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise NbserveError(f"{directory} is not a folder that only you can write to: set NBSERVE_RUNTIME_DIR to one")
    return directory


def server_dir(server_id: str) -> Path:
    return runtime_dir() / server_id


def make_server_dir(server_id: str) -> Path:
    """The folder of a server's log and of its workers' sockets, open to this user alone."""
    directory = server_dir(server_id)
    directory.mkdir(mode=0o700, exist_ok=True)
    directory.chmod(0o700)
    return directory


def read(path: Path) -> RunFile | None:
    """The run file at `path`, or None when it is gone or damaged."""
    try:
        return RunFile(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def running() -> Iterator[RunFile]:
    """The run files of all live servers of this user, oldest first; files of dead servers are removed."""
    found = [(path, read(path)) for path in runtime_dir().glob("*.json")]
    live = []
    for path, run_file in found:
        if run_file is None or not run_file.is_alive():
            remove(path.stem)
        else:
            live.append(run_file)
    yield from sorted(live, key=lambda run_file: run_file.started_s)


def remove(server_id: str) -> None:
    """Remove what a server left: its run file and its folder."""
    directory = server_dir(server_id)
    directory.with_suffix(".json").unlink(missing_ok=True)
    # Sockets and recordings may go meanwhile by themselves.
    shutil.rmtree(directory, ignore_errors=True)


def _configured_dir() -> Path:
    if chosen := os.environ.get("NBSERVE_RUNTIME_DIR"):
        return Path(chosen)
    if user_dir := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(user_dir) / "nbserve"
    return Path(tempfile.gettempdir()) / f"nbserve-{os.getuid()}"

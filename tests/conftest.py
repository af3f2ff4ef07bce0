"""What all tests share: a runtime dir of their own, and proof that no test leaves a process or a run file behind."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

pytest_plugins = ["tests.chromium", "tests.served"]

LEAVE_TIME_S = 10.0

# Started in the background, or by nohup, the tests would ignore these, and so would all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The same examples in each run: what fails in CI fails here too, and nothing fails by luck.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")


@pytest.fixture(scope="session", autouse=True)
def runtime_dir() -> Iterator[Path]:
    """NBSERVE_RUNTIME_DIR of this test run; every process of ours inherits it, and is known by it.

    Bundles go into a cache of the run's own too: one kept from an earlier run would bring its recorded requests along.
    """
    with (
        tempfile.TemporaryDirectory(prefix="nbserve-test-") as folder,
        tempfile.TemporaryDirectory(prefix="nbserve-test-cache-") as cache,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("NBSERVE_RUNTIME_DIR", folder)
        patch.setenv("NBSERVE_CACHE_DIR", cache)
        yield Path(folder)
        left = _wait_until_gone(set())
        _kill(left)
        files = [str(path) for path in Path(folder).rglob("*") if not path.is_dir()]
    assert not left, f"the test run left processes behind: {_describe(left)}"
    assert not files, f"the test run left files behind: {files}"


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest, runtime_dir: Path) -> Iterator[None]:
    """After a test that starts processes, those that it started are gone, and so are the run files that it wrote."""
    if not any(request.node.get_closest_marker(name) for name in ("process", "notebook", "ray")):
        yield
        return
    before = set(_ours())
    yield
    left = _wait_until_gone(before)
    _kill(left)
    assert not left, f"the test left processes behind: {_describe(left)}"
    stale = [path for path in runtime_dir.glob("*.json") if not psutil.pid_exists(json.loads(path.read_text())["pid"])]
    assert not stale, f"the test left run files behind: {stale}"


def _ours() -> list[psutil.Process]:
    marker = os.environ["NBSERVE_RUNTIME_DIR"]
    return [process for process in psutil.process_iter() if process.pid != os.getpid() and _carries(process, marker)]


def _carries(process: psutil.Process, marker: str) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get("NBSERVE_RUNTIME_DIR") == marker
    except psutil.Error:
        return False


def _wait_until_gone(allowed: set[psutil.Process]) -> list[psutil.Process]:
    """The processes that are neither allowed nor children of allowed ones (a server of a wider fixture may restart)."""
    deadline = time.monotonic() + LEAVE_TIME_S
    while left := [process for process in _ours() if not _belongs(process, allowed)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return left


def _belongs(process: psutil.Process, allowed: set[psutil.Process]) -> bool:
    try:
        return process in allowed or not allowed.isdisjoint(process.parents())
    except psutil.Error:
        return True


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def _describe(processes: list[psutil.Process]) -> list[str]:
    described = []
    for process in processes:
        try:
            described.append(f"{process.pid}: {' '.join(process.cmdline())[:200]}")
        except psutil.Error:
            described.append(f"{process.pid}")
    return described

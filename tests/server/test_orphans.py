"""What a server reaps that has become its child."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, cast

import pytest

from nbserve.server import orphans
from nbserve.server.orphans import Orphans, inherits_orphans

# A subreaper inherits as the first process of a container does. It starts a child that leaves a grandchild behind,
# another that it waits for late, and says what became of the two.
SUBREAPER = """
import asyncio, ctypes, json, os, subprocess, sys, time
import psutil
from nbserve.server import orphans
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
assert orphans.inherits_orphans()
orphans.LOOK_EVERY_S = 0.2

async def main():
    loop = asyncio.get_running_loop()
    watch = orphans.Orphans(loop)
    watch.watch()
    leave = "import os, time; pid = os.fork(); print(pid, flush=True) if pid else time.sleep(0.1)"
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", leave, stdout=subprocess.PIPE)
    grandchild = int(await parent.stdout.readline())
    ours = await asyncio.create_subprocess_exec(sys.executable, "-c", "raise SystemExit(7)")
    popen = subprocess.Popen([sys.executable, "-c", "raise SystemExit(8)"])
    codes = [await parent.wait(), await ours.wait(), await loop.run_in_executor(None, popen.wait)]
    while psutil.pid_exists(grandchild):
        await asyncio.sleep(0.05)
    watch.stop()
    print(json.dumps(codes))

LOOP
"""


@pytest.mark.process
@pytest.mark.parametrize(
    "loop", ["asyncio.run(main())", "import uvloop; uvloop.run(main())"], ids=["asyncio", "uvloop"]
)
def test_what_others_left_is_reaped_and_what_we_started_is_not(loop: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SUBREAPER.replace("LOOP", loop)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == [0, 7, 8]


class Child:
    def __init__(self, pid: int) -> None:
        self.pid = pid


def test_a_child_is_reaped_at_the_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [{1, 2}, {2, 3}, {3}, set()]
    reaped: list[int] = []
    children = {number: Child(number) for number in (1, 2, 3)}
    monkeypatch.setattr(orphans, "ended_children", lambda: {children[number] for number in looks.pop(0)})
    monkeypatch.setattr(os, "waitpid", lambda pid, flags: reaped.append(pid))
    watch = Orphans(cast("Any", None))
    for found in ([], [2], [2, 3], [2, 3]):
        watch.look()
        assert reaped == found


def test_only_who_inherits_looks() -> None:
    assert not inherits_orphans()

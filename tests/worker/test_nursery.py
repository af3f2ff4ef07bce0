"""The nursery: workers in milliseconds, every end reported, nothing left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from nbserve.worker.nursery import start_method

pytestmark = pytest.mark.process

WriteBundle = Callable[..., Path]
WaitUntil = Callable[[Callable[[], object], str], None]

CRASH = """
    import os
    import nbserve.handler as nbserve

    class Crash(nbserve.Handler):
        def handle(self, requests, context):
            os._exit(requests[0])
"""
SLEEP = """
    import time
    import nbserve.handler as nbserve

    class Sleep(nbserve.Handler):
        def handle(self, requests, context):
            print("asleep")
            while True:
                time.sleep(1)
"""


def test_four_workers_are_ready_soon_and_answer(nursery: Any, bundle: WriteBundle) -> None:
    folder = bundle()
    began = time.monotonic()
    workers = [nursery.start_ready(folder, worker_index=index) for index in range(4)]
    took_s = time.monotonic() - began
    assert [worker.ask({"row": 1}, [2]) for worker in workers] == [[{"row": 1}, [2]]] * 4
    assert len({worker.pid for worker in workers}) == 4
    # Forks take 0.1 s; four imports of torch would take seconds even on a fast machine.
    assert took_s < 3


def test_the_nursery_says_what_it_imported(nursery: Any) -> None:
    ready = nursery.ready
    assert ready["pid"] == nursery.process.pid
    assert ready["torch"].startswith("2")
    assert 0 < ready["import_s"] < 60


def test_the_end_of_a_worker_is_reported_with_its_status(nursery: Any, bundle: WriteBundle) -> None:
    folder = bundle(CRASH)
    killed, crashed, stopped = (nursery.start_ready(folder) for _ in range(3))
    os.kill(killed.pid, signal.SIGKILL)
    crashed.send(b"7")
    stopped.tell("stop")
    assert nursery.exit_code(stopped) == 0
    assert nursery.exit_code(crashed) == 7
    assert nursery.exit_code(killed) == -signal.SIGKILL


def test_a_channel_closes_when_its_own_worker_ends(nursery: Any, bundle: WriteBundle) -> None:
    folder = bundle(CRASH)
    first, second, third = (nursery.start_ready(folder) for _ in range(3))
    # Were the first one's channel held by its younger siblings, this would wait for ever.
    first.send(b"1")
    assert first.frame() is None
    for other in (second, third):
        other.tell("stop")
        assert nursery.exit_code(other) == 0


def test_a_worker_holds_nothing_but_its_own(nursery: Any, bundle: WriteBundle) -> None:
    folder = bundle()
    nursery.start_ready(folder)
    worker = nursery.start_ready(folder)
    fds = {int(path.name): str(path.readlink()) for path in Path(f"/proc/{worker.pid}/fd").iterdir()}
    kinds = sorted(target.partition(":")[0] for target in fds.values())
    assert fds[0] == "/dev/null"
    assert fds[1] == fds[2]
    assert kinds == ["/dev/null", "pipe", "pipe", "socket"]


def test_a_killed_nursery_takes_its_workers_along(own_nursery: Any, bundle: WriteBundle, wait_until: WaitUntil) -> None:
    nursery = own_nursery()
    workers = [nursery.start_ready(bundle(SLEEP, "sleep")), nursery.start_ready(bundle())]
    workers[0].send(b"1")
    workers[0].wait_for_log("asleep")
    nursery.process.kill()
    wait_until(lambda: not any(psutil.pid_exists(worker.pid) for worker in workers), "the workers to end")


def test_a_server_that_hangs_up_ends_everything(own_nursery: Any, bundle: WriteBundle) -> None:
    nursery = own_nursery()
    workers = [nursery.start_ready(bundle(SLEEP, "sleep")), nursery.start_ready(bundle())]
    workers[0].send(b"1")
    workers[0].wait_for_log("asleep")
    nursery.hang_up()
    assert nursery.process.wait(20) == 0
    assert not any(psutil.pid_exists(worker.pid) for worker in workers)


def test_a_worker_that_ignores_sigterm_is_killed(own_nursery: Any, bundle: WriteBundle) -> None:
    nursery = own_nursery()
    source = SLEEP.replace("import time", "import time, signal").replace(
        'print("asleep")', 'signal.signal(signal.SIGTERM, signal.SIG_IGN); print("deaf", flush=True)'
    )
    worker = nursery.start_ready(bundle(source))
    worker.send(b"1")
    worker.wait_for_log("deaf")
    nursery.hang_up()
    assert nursery.process.wait(20) == 0
    assert not psutil.pid_exists(worker.pid)


def test_what_a_handler_started_ends_with_its_worker(nursery: Any, bundle: WriteBundle, wait_until: WaitUntil) -> None:
    source = """
        import subprocess
        import nbserve.handler as nbserve

        class Parent(nbserve.Handler):
            def handle(self, requests, context):
                return [subprocess.Popen(["sleep", "600"]).pid for _ in requests]
    """
    worker = nursery.start_ready(bundle(source))
    [child] = worker.ask(1)
    assert psutil.pid_exists(child)
    os.kill(worker.pid, signal.SIGKILL)
    nursery.exit_code(worker)
    wait_until(lambda: not psutil.pid_exists(child), "the handler's process to end")


def test_the_nursery_ignores_an_interrupt(own_nursery: Any, bundle: WriteBundle) -> None:
    nursery = own_nursery()
    worker = nursery.start_ready(bundle())
    for pid in (nursery.process.pid, worker.pid):
        os.kill(pid, signal.SIGINT)
    assert worker.ask(1) == [1]
    assert nursery.start_ready(bundle(name="second")).ask(2) == [2]


def test_modules_are_imported_ahead(own_nursery: Any, bundle: WriteBundle) -> None:
    nursery = own_nursery()
    nursery.say("preimport", modules=["wave", "no_such_module"])
    answer = nursery.hear("preimported")
    assert answer["modules"] == ["wave", "no_such_module"]
    assert list(answer["errors"]) == ["no_such_module"]
    assert "ModuleNotFoundError" in answer["errors"]["no_such_module"]
    assert answer["threads"] == 1
    source = """
        import sys
        was_there = "wave" in sys.modules
        import nbserve.handler as nbserve

        class Look(nbserve.Handler):
            def handle(self, requests, context):
                return [was_there for _ in requests]
    """
    assert nursery.start_ready(bundle(source)).ask(1) == [True]


def test_threads_of_an_import_are_reported_and_workers_are_spawned_then(
    own_nursery: Any, bundle: WriteBundle, tmp_path: Path
) -> None:
    (tmp_path / "starts_a_thread.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    )
    nursery = own_nursery(PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    nursery.say("preimport", modules=["starts_a_thread"])
    assert nursery.hear("preimported")["threads"] == 2
    worker = nursery.start_ready(bundle())
    assert "-m nbserve.worker" in " ".join(psutil.Process(worker.pid).cmdline())
    assert worker.ask(1) == [1]


def test_a_spawned_worker_does_the_same_as_a_forked_one(own_nursery: Any, bundle: WriteBundle) -> None:
    nursery = own_nursery(NBSERVE_START_METHOD="spawn")
    worker = nursery.start_ready(bundle())
    assert worker.ask({"a": 1}) == [{"a": 1}]
    worker.tell("stop")
    assert nursery.exit_code(worker) == 0
    other = nursery.start_ready(bundle(CRASH, "crash"))
    other.send(b"9")
    assert other.frame() is None
    assert nursery.exit_code(other) == 9


def test_forks_are_for_one_thread_on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NBSERVE_START_METHOD", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert [start_method(threads) for threads in (1, 2)] == ["fork", "spawn"]
    monkeypatch.setattr("sys.platform", "darwin")
    assert start_method(1) == "spawn"
    monkeypatch.setenv("NBSERVE_START_METHOD", "fork")
    assert start_method(1) == "fork"

"""`%%serve` and `%serve` in a real kernel: from the cell to the answer, and everything that can go wrong between."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.notebook, pytest.mark.process]

DOUBLE = """%%serve double --max-batch-size 4
import nbserve
factor = 2

class Double(nbserve.Handler):
    def initialize(self, context):
        print("double is up")

    def preprocess(self, requests):
        return requests

    def inference(self, rows):
        return [factor * row for row in rows]
"""
TRIPLE = DOUBLE.replace("factor = 2", "factor = 3")


def server_pids(kernel: Any) -> list[int]:
    """The server that belongs to a kernel, its nursery and its workers."""
    family = psutil.Process(kernel.pid).children(recursive=True)
    return [process.pid for process in family]


def until(condition: Callable[[], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_loading_does_not_block(new_kernel: Callable[[], Any]) -> None:
    kernel = new_kernel()
    kernel.ok("%unload_ext nbserve")
    took = kernel.ok(
        "import time; _t = time.perf_counter()\nget_ipython().extension_manager.load_extension('nbserve')\n"
        "print(time.perf_counter() - _t)"
    )
    assert float(took.printed.split()[-1]) < 0.5, "50 ms on an idle machine"
    assert kernel.ok("import sys; 'torch' in sys.modules").value == "False"


def test_a_cell_is_served_looked_at_changed_and_stopped(kernel: Any) -> None:
    served = kernel.ok(DOUBLE)
    assert [sorted(display["data"]) for display in served.displays] == [
        ["text/html", "text/plain"],
        ["image/png", "text/plain"],
    ]
    assert "1 ready (cpu)" in served.text
    assert "max_batch_size=4" in served.text
    assert "curl " in served.text
    assert "/predictions/double" in served.displays[0]["data"]["text/html"]

    assert kernel.ok("%serve predict double 21").value == "42"
    assert kernel.ok("x = [1, 2]\n%serve predict double x + [3]").value == "[1, 2, 3, 1, 2, 3]"
    assert kernel.run("%serve predict double nothing").error.endswith("NameError: name 'nothing' is not defined")
    assert "double" in kernel.ok("%serve").text
    assert "200: 2" in kernel.ok("%serve status double").text
    assert "workers = 2" in kernel.ok("%serve config double workers=2 --max-batch-size 8").text
    assert until(lambda: "2 ready" in kernel.ok("%serve status").text, within_s=20)
    assert "double is up" in kernel.ok("%serve logs double").text
    assert "double is stopped" in kernel.ok("%serve stop double").text
    assert "predictions/double" not in kernel.ok("%serve").text


def test_a_re_run_replaces_the_handler_at_the_same_url(kernel: Any) -> None:
    url = re.search(r"http://\S+/predictions/double", kernel.ok(DOUBLE).text)
    again = kernel.ok(TRIPLE)
    assert url
    assert url.group() in again.text
    assert kernel.ok("%serve predict double 2").value == "6"


def test_python_programs_use_the_same_path(kernel: Any) -> None:
    kernel.ok("import nbserve\ndef shout(requests):\n    return [text.upper() for text in requests]\n")
    shown = kernel.ok("ep = nbserve.serve(shout, workers=1)\nep")
    assert "shout" in (shown.value or "")
    assert "/predictions/shout" in (shown.value or "")
    assert kernel.ok("ep.predict('abc')").value == "'ABC'"
    assert "shout" in kernel.ok("%serve").text
    kernel.ok("ep.stop()")


def test_an_error_in_the_cell_fails_it_and_shows_its_lines_alone(kernel: Any) -> None:
    failed = kernel.run("%%serve broken\nimport nbserve\n\n1 / 0\n")
    assert failed.status == "error"
    assert failed.error_name == "ZeroDivisionError"
    assert "----> 4 1 / 0" in failed.error
    assert "run_cell_magic" not in failed.error
    assert "/nbserve/" not in failed.error


def test_a_version_that_does_not_start_shows_the_cell_s_line_and_leaves_the_old_one(kernel: Any) -> None:
    kernel.ok(DOUBLE)
    failed = kernel.run(DOUBLE.replace('print("double is up")', 'raise RuntimeError("no weights here")'))
    assert failed.error_name == "StartError"
    assert "no weights here" in failed.error
    assert f"notebook, cell {failed.number}, line 7" in failed.error.replace('"', "")
    assert "/nbserve/" not in failed.error
    assert kernel.ok("%serve predict double 4").value == "8"


def test_what_cannot_be_captured_is_one_clear_error(kernel: Any) -> None:
    kernel.ok("import threading\nlock = threading.Lock()")
    failed = kernel.run("%%serve locked\ndef locked(requests):\n    with lock:\n        return requests\n")
    assert failed.error_name == "CaptureError"
    assert "lock" in failed.error
    assert "/nbserve/" not in failed.error
    assert "Traceback" not in failed.error


def test_a_failed_prediction_shows_the_handler_s_traceback(kernel: Any) -> None:
    kernel.ok(DOUBLE)
    failed = kernel.run('%serve predict double {"a": 1}')
    assert failed.error_name == "PredictError"
    assert "line 13, in inference" in failed.error
    assert "/nbserve/" not in failed.error
    kernel.ok("%serve stop double")


def test_nothing_to_serve_is_explained(kernel: Any) -> None:
    failed = kernel.run("%%serve nothing\nx = 1\n")
    assert "the cell has nothing to serve" in failed.error
    assert len(failed.error.splitlines()) <= 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("%serve statsu", "did you mean status?"),
        ("%serve config double --max-batch-sise 4", "did you mean --max-batch-size?"),
        ("%%serve double --worker 2\npass", "did you mean --workers?"),
        ("%%serve double --workers 0\npass", "workers is 0; the least it can be is 1"),
        ("%serve predict nowhere 1", "no endpoint is named 'nowhere'"),
        ("%serve predict double", "what to send"),
        ("%serve stop", "--all"),
    ],
)
def test_mistakes_are_told_in_a_line_or_two(kernel: Any, line: str, said: str) -> None:
    failed = kernel.run(line)
    assert failed.status == "error"
    assert said in failed.text
    assert len(failed.text.strip().splitlines()) <= 3


def test_help_is_there_for_every_verb(kernel: Any) -> None:
    assert "--max-batch-delay-ms" in kernel.ok("%%serve --help").text
    assert "%serve logs" in kernel.ok("%serve --help").text
    for verb in ("status", "panel", "predict", "debug", "config", "logs", "stop"):
        assert f"usage: %serve {verb}" in kernel.ok(f"%serve {verb} --help").text


def test_an_interrupt_while_it_starts_leaves_the_old_version(kernel: Any) -> None:
    kernel.ok(DOUBLE)
    slow = DOUBLE.replace('print("double is up")', "import time; time.sleep(60)")
    interrupted: list[float] = []

    def interrupt_once(outcome: Any) -> None:
        if not interrupted and "start" in outcome.text:
            interrupted.append(time.monotonic())
            kernel.manager.interrupt_kernel()

    stopped = kernel.run(slow, interrupt_once)
    assert stopped.error_name == "KeyboardInterrupt"
    assert "/nbserve/" not in stopped.error
    assert time.monotonic() - interrupted[0] < 10
    assert kernel.ok("%serve predict double 4").value == "8"
    kernel.ok(TRIPLE)
    assert kernel.ok("%serve predict double 4").value == "12"


def test_a_killed_kernel_takes_everything_with_it(new_kernel: Callable[[], Any], runtime_dir: Path) -> None:
    others = set(runtime_dir.iterdir())
    kernel = new_kernel()
    kernel.ok(DOUBLE)
    pids = server_pids(kernel)
    assert len(pids) >= 3
    os.kill(kernel.pid, signal.SIGKILL)
    assert until(lambda: not any(_runs(pid) for pid in pids), within_s=10)
    assert until(lambda: set(runtime_dir.iterdir()) <= others, within_s=5)


def test_a_detached_server_outlives_its_kernel_and_is_found_again(new_kernel: Callable[[], Any]) -> None:
    first = new_kernel()
    first.ok(DOUBLE.replace("%%serve double", "%%serve double --detach"))
    pids = server_pids(first)
    os.kill(first.pid, signal.SIGKILL)
    assert until(lambda: not _runs(first.pid), within_s=10)

    second = new_kernel()
    assert "detached server" in second.ok("%serve status").text
    assert second.ok("%serve predict double 5").value == "10"
    assert "on the detached server" in second.ok(TRIPLE).text
    assert second.ok("%serve predict double 5").value == "15"
    assert second.ok("%serve stop --all").text.count("is stopped") == 2
    assert until(lambda: not any(_runs(pid) for pid in pids), within_s=10)


def test_a_server_that_died_is_started_again_with_its_endpoints(new_kernel: Callable[[], Any]) -> None:
    kernel = new_kernel()
    kernel.ok(DOUBLE)
    kernel.ok("%%serve echo --max-batch-size 3\ndef echo(requests):\n    return requests\n")
    kernel.ok("%serve config echo max_batch_size=5")
    server = psutil.Process(kernel.pid).children()[0]
    server.kill()
    assert until(lambda: not _runs(server.pid), within_s=10)
    again = kernel.ok(TRIPLE)
    assert "the server had ended; a new one was started" in again.text
    assert "echo is back" in again.text
    assert kernel.ok("%serve predict echo 7").value == "7"
    assert "max_batch_size = 5" in kernel.ok("%serve config echo").text
    assert kernel.ok("%serve predict double 7").value == "21"


def test_a_cell_that_is_run_again_brings_its_own_settings(new_kernel: Callable[[], Any]) -> None:
    kernel = new_kernel()
    kernel.ok(DOUBLE)
    kernel.ok("%serve config double max_batch_size=5")
    kernel.ok(DOUBLE)
    assert "max_batch_size = 4 " in kernel.ok("%serve config double").text


def test_unloading_stops_the_server(new_kernel: Callable[[], Any]) -> None:
    kernel = new_kernel()
    kernel.ok(DOUBLE)
    pids = server_pids(kernel)
    kernel.ok("%unload_ext nbserve")
    assert until(lambda: not any(_runs(pid) for pid in pids), within_s=10)
    assert kernel.run("%serve").status == "error"


def test_loading_again_starts_no_second_watch_of_a_detached_server(new_kernel: Callable[[], Any]) -> None:
    kernel = new_kernel()
    watching = "import threading; [thread.name for thread in threading.enumerate() if 'watch' in thread.name]"
    for cell in (DOUBLE, TRIPLE):
        kernel.ok(cell.replace("%%serve double", "%%serve double --detach"))
        assert kernel.ok(watching).value == "['nbserve-watch-double']"
        kernel.ok("%unload_ext nbserve")
        kernel.ok("%load_ext nbserve")
    kernel.ok("%serve stop --all")
    assert until(lambda: kernel.ok(watching).value == "[]", within_s=10)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

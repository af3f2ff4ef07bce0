"""A real worker: what it loads, says, prints, and how it stops."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from nbserve import wire

pytestmark = pytest.mark.process

WriteBundle = Callable[..., Path]


def test_a_worker_imports_neither_server_nor_jupyter(nursery: Any, bundle: WriteBundle) -> None:
    source = """
        import sys
        import nbserve.handler as nbserve

        class Modules(nbserve.Handler):
            def handle(self, requests, context):
                return [sorted(sys.modules)]
    """
    [modules] = nursery.start_ready(bundle(source)).ask(1)
    packages = {".".join(name.split(".")[:2]) for name in modules} | {name.split(".")[0] for name in modules}
    assert "torch" in packages
    unwanted = {"tornado", "prometheus_client", "IPython", "ipykernel", "ipywidgets", "jupyter_client", "uvloop"}
    assert not packages & (unwanted | {"nbserve.server", "nbserve.notebook", "nbserve.cli"})


def test_a_batch_with_a_bad_row_answers_the_others_and_tells_the_log_first(nursery: Any, bundle: WriteBundle) -> None:
    source = """
        import nbserve.handler as nbserve

        class Inverse(nbserve.Handler):
            def handle(self, requests, context):
                return [1 / value for value in requests]
    """
    worker = nursery.start_ready(bundle(source))
    worker.send(b"1", b"0", b"2")
    event = worker.event()
    assert (event["event"], event["error"]) == ("handler_error", "ZeroDivisionError: division by zero")
    assert "return [1 / value for value in requests]" in event["traceback"]
    assert "nbserve/worker" not in event["traceback"]
    assert [row.status for row in worker.results().rows] == [200, 500, 200]


def test_isolation_can_be_turned_off_while_it_runs(nursery: Any, bundle: WriteBundle) -> None:
    source = """
        import nbserve.handler as nbserve

        class Inverse(nbserve.Handler):
            def handle(self, requests, context):
                return [1 / value for value in requests]
    """
    worker = nursery.start_ready(bundle(source))
    worker.tell("configure", isolate_errors=False, threads=1)
    worker.send(b"1", b"0")
    assert worker.event()["event"] == "handler_error"
    assert [row.status for row in worker.results().rows] == [500, 500]


def test_a_handler_that_cannot_start_says_why_and_ends_with_3(nursery: Any, bundle: WriteBundle) -> None:
    source = """
        import nbserve.handler as nbserve

        class Broken(nbserve.Handler):
            def initialize(self, context):
                try:
                    {}["weights"]
                except KeyError as error:
                    raise ValueError("no weights") from error
    """
    worker = nursery.start(bundle(source))
    event = worker.event()
    assert (event["event"], event["error"]) == ("failed", "ValueError: no weights")
    assert '{}["weights"]' in event["traceback"]
    assert "direct cause" in event["traceback"]
    assert "nbserve/worker" not in event["traceback"]
    assert nursery.exit_code(worker) == 3


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("\nimport no_such_package\n\nclass A: pass\n", "ModuleNotFoundError"),
        ("\nclass A:\n    pass\n", "no nbserve.Handler and has no handle"),
        ("\nimport sys\nsys.exit(5)\n\nclass A: pass\n", "SystemExit: 5"),
    ],
)
def test_a_bundle_that_cannot_be_loaded_is_a_failed_start(
    nursery: Any, bundle: WriteBundle, source: str, error: str
) -> None:
    worker = nursery.start(bundle(source))
    event = worker.event()
    assert event["event"] == "failed"
    assert error in event["error"]
    assert nursery.exit_code(worker) == 3


def test_a_folder_that_is_no_bundle_is_a_failed_start(nursery: Any, tmp_path: Path) -> None:
    worker = nursery.start(tmp_path)
    assert "is not a bundle" in worker.event()["error"]
    assert nursery.exit_code(worker) == 3


def test_stop_finishes_what_was_received(nursery: Any, bundle: WriteBundle) -> None:
    source = """
        import atexit, time
        import nbserve.handler as nbserve
        atexit.register(print, "said goodbye")

        class Slow(nbserve.Handler):
            def handle(self, requests, context):
                time.sleep(0.1)
                return requests
    """
    worker = nursery.start_ready(bundle(source))
    sent = [worker.send(b"1"), worker.send(b"2"), worker.send(b"3")]
    worker.tell("stop")
    assert [worker.results().batch_id for _ in sent] == sent
    assert worker.frame() is None
    assert nursery.exit_code(worker) == 0
    assert "said goodbye" in worker.log()


def test_a_server_that_closes_the_channel_stops_the_worker(nursery: Any, bundle: WriteBundle) -> None:
    worker = nursery.start_ready(bundle())
    worker.channel.close()
    assert nursery.exit_code(worker) == 0


def test_prints_are_in_the_log_while_the_handler_still_runs(nursery: Any, bundle: WriteBundle) -> None:
    source = """
        import sys, time, subprocess
        import nbserve.handler as nbserve

        class Chatty(nbserve.Handler):
            def handle(self, requests, context):
                print("to stdout: é")
                print("to stderr", file=sys.stderr)
                subprocess.run(["echo", "from a child"])
                print("read:", repr(sys.stdin.read()))
                while True:
                    time.sleep(1)
    """
    worker = nursery.start_ready(bundle(source))
    worker.send(b"1")
    log = worker.wait_for_log("read: ''")
    assert "to stdout: é\n" in log
    assert "to stderr\n" in log
    assert "from a child\n" in log


def test_a_hung_worker_shows_the_line_it_hangs_in(nursery: Any, bundle: WriteBundle) -> None:
    source = """
        import time
        import nbserve.handler as nbserve

        class Hang(nbserve.Handler):
            def handle(self, requests, context):
                print("hangs")
                while True:
                    time.sleep(600)
    """
    folder = bundle(source)
    worker = nursery.start_ready(folder)
    worker.send(b"1")
    worker.wait_for_log("hangs")
    os.kill(worker.pid, signal.SIGUSR1)
    line = source.splitlines().index("                    time.sleep(600)") + 1
    log = worker.wait_for_log("in handle")
    assert f'app.py", line {line} in handle' in log


def test_a_crash_in_c_code_leaves_a_stack_in_the_log(nursery: Any, bundle: WriteBundle) -> None:
    source = """
        import ctypes
        import nbserve.handler as nbserve

        class Segfault(nbserve.Handler):
            def handle(self, requests, context):
                ctypes.string_at(0)
    """
    worker = nursery.start_ready(bundle(source))
    worker.send(b"1")
    assert worker.frame() is None
    assert nursery.exit_code(worker) == -signal.SIGSEGV
    assert "in handle" in worker.wait_for_log("Segmentation fault")


def test_a_damaged_frame_ends_the_worker_with_a_traceback(nursery: Any, bundle: WriteBundle) -> None:
    worker = nursery.start_ready(bundle())
    worker.channel.sendall(b"\xff" * wire.HEADER_BYTES)
    assert nursery.exit_code(worker) == 1
    assert "WireError" in worker.log()


def test_workers_have_random_states_of_their_own(nursery: Any, bundle: WriteBundle) -> None:
    source = """
        import random
        import numpy, torch
        import nbserve.handler as nbserve

        class Dice(nbserve.Handler):
            def handle(self, requests, context):
                return [[random.random(), numpy.random.rand(), torch.rand(1).item()]]
    """
    folder = bundle(source)
    first, second = (nursery.start_ready(folder).ask(1)[0] for _ in range(2))
    assert all(one != other for one, other in zip(first, second, strict=True))


def test_signals_are_as_in_a_fresh_process(nursery: Any, bundle: WriteBundle) -> None:
    source = """
        import signal
        import nbserve.handler as nbserve

        class Signals(nbserve.Handler):
            def handle(self, requests, context):
                defaults = [signal.getsignal(number) == signal.SIG_DFL for number in (signal.SIGCHLD, signal.SIGTERM)]
                return [[*defaults, signal.set_wakeup_fd(-1)]]
    """
    assert nursery.start_ready(bundle(source)).ask(1) == [[True, True, -1]]


def test_threads_are_set_and_parallel_work_runs_in_a_fork(nursery: Any, bundle: WriteBundle) -> None:
    source = """
        import os
        import torch
        import nbserve.handler as nbserve

        class Multiply(nbserve.Handler):
            def handle(self, requests, context):
                torch.rand(1500, 1500) @ torch.rand(1500, 1500)
                layer = torch.nn.Linear(800, 800)
                layer(torch.rand(300, 800)).sum().backward()
                return [[torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"]]]
    """
    folder = bundle(source)
    for threads in (1, 2, 2):
        assert nursery.start_ready(folder, threads=threads).ask(1) == [[threads, str(threads), str(threads)]]


def test_the_context_tells_a_handler_where_it_is(nursery: Any, bundle: WriteBundle) -> None:
    source = """
        import nbserve.handler as nbserve

        class Where(nbserve.Handler):
            def handle(self, requests, context):
                assert context is self.context
                request = context.requests[0]
                return [{
                    "context": [context.model_dir, context.device, context.worker_index, context.endpoint,
                                context.version, context.properties["gpu_id"]],
                    "request": [request.id, dict(request.headers), dict(request.query), request.content_type],
                }]
    """
    folder = bundle(source)
    worker = nursery.start_ready(folder, worker_index=3, endpoint="digits", version="abc", id_prefix="f00")
    worker.send(b"1", meta=b"top=3&q=a%20b\0application/json\0X-Trace:7\nuser-agent:test")
    [row] = worker.results().rows
    assert orjson.loads(row.body) == {
        "context": [str(folder), "cpu", 3, "digits", "abc", None],
        "request": [
            "f00-64",
            {"content-type": "application/json", "x-trace": "7", "user-agent": "test"},
            {"top": "3", "q": "a b"},
            "application/json",
        ],
    }


def test_metrics_of_a_handler_are_sent_as_changes(nursery: Any, bundle: WriteBundle) -> None:
    source = """
        import nbserve.handler as nbserve

        class Counts(nbserve.Handler):
            def handle(self, requests, context):
                context.metrics.counter("rows", "Rows seen").inc(len(requests))
                context.metrics.gauge("last").set(requests[-1])
                context.metrics.histogram("size", buckets=(1, 10)).observe(requests[0])
                return requests
    """
    worker = nursery.start_ready(bundle(source))
    worker.ask(5, 6)
    assert worker.event() == {
        "event": "metrics",
        "counters": {"rows": {"help": "Rows seen", "delta": 2.0}},
        "gauges": {"last": {"help": "", "value": 6.0}},
        "histograms": {"size": {"help": "", "buckets": [1.0, 10.0], "counts": [0, 1, 0], "sum": 5.0}},
    }
    # Sent without a further batch, once the interval is over; and before a stop, without waiting for it.
    worker.ask(7)
    assert worker.event()["counters"]["rows"]["delta"] == 1.0
    worker.ask(8)
    worker.tell("stop")
    assert worker.event()["gauges"]["last"]["value"] == 8.0
    assert worker.frame() is None


@pytest.mark.parametrize("size", [0, 1, 60_000, 300_000, 3_000_000])
def test_bodies_of_any_size_come_back(nursery: Any, bundle: WriteBundle, size: int) -> None:
    worker = nursery.start_ready(bundle())
    bodies = [bytes([index]) * size for index in range(5)]
    for _ in range(2):
        worker.send(*bodies, meta=b"\0image/png\0")
        results = worker.results()
        assert [bytes(row.body) for row in results.rows] == bodies


def test_a_batch_of_very_many_rows_comes_back(nursery: Any, bundle: WriteBundle) -> None:
    worker = nursery.start_ready(bundle())
    bodies = [b"%d" % index * 20 for index in range(5000)]
    worker.send(*bodies, meta=b"\0text/plain\0")
    assert [bytes(row.body) for row in worker.results().rows] == bodies


def test_a_torchserve_handler_runs_unchanged(nursery: Any, bundle: WriteBundle) -> None:
    source = """
        class Legacy:
            def initialize(self, context):
                self.model_dir = context.system_properties.get("model_dir")
                self.initialized = True

            def handle(self, data, context):
                assert self.initialized
                return [row.get("data") or row.get("body") for row in data]
    """
    worker = nursery.start_ready(bundle(source))
    assert worker.ask({"a": 1}, [2]) == [{"a": 1}, [2]]

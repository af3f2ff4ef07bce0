"""The load generator against a server that does what the test wants."""

from __future__ import annotations

import itertools
import socket
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
import psutil
import pytest

from nbserve.errors import ProfileError
from nbserve.load.job import Job
from nbserve.profiling.generator import LoadGenerator
from nbserve.profiling.requests import Request

pytestmark = [pytest.mark.process, pytest.mark.alone]

REQUESTS = [Request("text/plain", body) for body in (b"a", b"b", b"c")]


class Listener:
    """Answers with the status that `react` gives for a body; remembers bodies and connections."""

    def __init__(self) -> None:
        self.react: Callable[[bytes], int] = lambda body: 200
        self.bodies: list[bytes] = []
        self.connections: set[int] = set()
        self.kinds: set[str] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/predictions/h"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        listener = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Two small writes per answer, which Nagle's algorithm would hold back.
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                listener.bodies.append(body)
                listener.kinds.add(self.headers["Content-Type"])
                listener.connections.add(self.client_address[1])
                self.send_response(listener.react(body))
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture
def generator(listener: Listener) -> Iterator[LoadGenerator]:
    # Its connections are closed before the listener waits for them.
    with LoadGenerator(REQUESTS) as generator:
        yield generator


def test_a_closed_loop_asks_in_order_on_connections_that_stay_open(listener, generator):
    outcome = generator.run(Job(listener.url, 60, clients=1, count=7, first=1))
    assert listener.bodies == [b"b", b"c", b"a", b"b", b"c", b"a", b"b"]
    assert (outcome["requests"], outcome["errors"]) == (7, {})
    assert outcome["rate"] == pytest.approx(7 / outcome["seconds"])
    assert set(outcome["latency_ms"]) == {"p50", "p90", "p99", "max", "mean"}
    generator.run(Job(listener.url, 60, clients=1, count=3))
    assert (len(listener.connections), listener.kinds) == (1, {"text/plain"})


def test_clients_ask_at_the_same_time(listener, generator):
    everyone = threading.Barrier(4)
    listener.react = lambda body: 200 if everyone.wait(30) is not None else 500
    assert generator.run(Job(listener.url, 60, clients=4, count=8))["requests"] == 8


def test_errors_are_counted_by_status(listener, generator):
    listener.react = lambda body: 503 if body == b"b" else 200
    outcome = generator.run(Job(listener.url, 60, count=6))
    assert (outcome["requests"], outcome["errors"]) == (6, {"503": 2})


def test_a_server_that_is_not_there_is_an_error_too(generator):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/x"
        outcome = generator.run(Job(url, 60, count=2))
    [(text, number)] = outcome["errors"].items()
    assert (text.startswith("no connection"), number, outcome["rate"]) == (True, 2, 0.0)


def test_an_open_loop_does_not_wait_for_answers(listener, generator):
    """All of ten requests are on their way before the first is answered; their latencies count the wait."""
    everyone = threading.Barrier(10)
    listener.react = lambda body: 200 if everyone.wait(30) is not None else 500
    outcome = generator.run(Job(listener.url, 60, rate=100, count=10))
    assert (outcome["requests"], outcome["errors"]) == (10, {})
    # The first was due 90 ms before the last, and none was answered before that one came.
    assert outcome["latency_ms"]["max"] >= 90


def test_a_run_can_be_ended_early(listener, generator):
    asked = threading.Event()
    listener.react = lambda body: asked.set() or 200
    generator.start(Job(listener.url, 3600))
    assert asked.wait(30)
    outcome = generator.stop()
    assert outcome is not None
    assert outcome["requests"] > 0
    assert generator.stop() is None
    assert generator.run(Job(listener.url, 60, count=1))["requests"] == 1


def test_it_ends_with_whoever_started_it(listener, wait_until):
    """Killed, so that nothing can be tidied up; in the middle of a run."""
    asked = threading.Event()
    listener.react = lambda body: asked.set() or 200
    program = (
        "import sys\nfrom nbserve.profiling.generator import LoadGenerator\nfrom nbserve.load.job import Job\n"
        "from nbserve.profiling.requests import Request\n"
        "generator = LoadGenerator([Request('text/plain', b'x')])\n"
        "generator.start(Job(sys.argv[1], 3600))\nprint(generator._process.pid, flush=True)\ninput()"
    )
    command = [sys.executable, "-c", program, listener.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert asked.wait(30)
        parent.kill()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_it_says_why_it_ended(generator):
    generator._process.stdin.write(b"no order\n")
    generator._process.stdin.flush()
    with pytest.raises(ProfileError, match=r"the load generator ended: orjson\.JSONDecodeError"):
        generator.run(Job("http://127.0.0.1:1/x", 1, count=1))


def test_it_imports_neither_torch_nor_numpy():
    code = "import sys, nbserve.load.__main__; print({'torch', 'numpy', 'tornado'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_requests_by_chance_come_at_the_same_times_in_each_run():
    job = Job("", 60, rate=100, is_poisson=True)
    due_s = list(itertools.islice(job.due_s(), 5_000))
    assert due_s == list(itertools.islice(job.due_s(), 5_000))
    gaps = [later - earlier for earlier, later in itertools.pairwise(due_s)]
    assert statistics.mean(gaps) == pytest.approx(0.01, rel=0.05)
    # As spread as they are long: that is what makes them exponential.
    assert statistics.stdev(gaps) == pytest.approx(0.01, rel=0.1)
    even = Job("", 60, rate=100)
    assert list(itertools.islice(even.due_s(), 3)) == [0.0, 0.01, 0.02]


def test_what_is_not_answered_soon_after_the_end_of_an_open_loop_is_an_error(listener, generator):
    may_answer = threading.Event()
    listener.react = lambda body: 200 if may_answer.wait(30) else 500
    outcome = generator.run(Job(listener.url, 60, rate=100, count=4, drain_s=0.05, is_poisson=True))
    may_answer.set()
    assert outcome["errors"] == {"no answer 0.05 s after the end": 4}


def test_a_job_tells_how_far_it_is(listener):
    listener.react = lambda body: 500 if body == b"b" else 200
    command = [sys.executable, "-m", "nbserve.load"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        job = asdict(Job(listener.url, 3600, progress_s=0.05))
        for order in (
            {"do": "requests", "requests": [["text/plain", "YQ=="], ["text/plain", "Yg=="]]},
            {"do": "run", **job},
        ):
            process.stdin.write(orjson.dumps(order) + b"\n")
        process.stdin.flush()
        said = [orjson.loads(process.stdout.readline())["progress"] for _ in range(3)]
        while said[-1]["requests"] < 4:
            said.append(orjson.loads(process.stdout.readline())["progress"])
        assert [line["requests"] for line in said] == sorted(line["requests"] for line in said)
        assert set(said[-1]["errors"]) == {"500"}
        process.stdin.write(b'{"do": "stop"}\n')
        process.stdin.flush()
        while "progress" in (line := orjson.loads(process.stdout.readline())):
            pass
        process.stdin.close()
    assert line["requests"] >= said[-1]["requests"]
    assert line["errors"]["500"] >= said[-1]["errors"]["500"]

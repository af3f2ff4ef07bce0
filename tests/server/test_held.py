"""A worker that a debugger holds: its time stands still, the others serve, and it can always be got rid of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from nbserve.deployment import Server
from nbserve.errors import NotFound
from nbserve.verbs import Endpoint

pytestmark = pytest.mark.process

# Line 7 of the cell, `%%serve` being line 1, is the breakpoint.
STOPS = """
class H(nbserve.Handler):
    def preprocess(self, requests):
        for x in requests:
            if x == "stop":
                breakpoint()
        return requests
    def inference(self, batch):
        return [[x] for x in batch]
"""

ALWAYS = """
import os
class H(nbserve.Handler):
    def handle(self, requests, context):
        breakpoint()
        return [os.getpid() for _ in requests]
"""


def held(endpoint):
    """What the first line of `/holds` says."""
    lines = endpoint.holds()
    try:
        return next(lines)
    finally:
        lines.close()


def workers(endpoint, role="worker"):
    return [worker for worker in endpoint.stats()["workers"] if worker["role"] == role]


@pytest.fixture
def stopped(wait_until, asked):
    """Send the request that stops, and wait until a worker is held with it."""

    def stop(endpoint, count=1):
        requests = []
        for number in range(1, count + 1):
            requests.append(asked(endpoint.url, "stop"))
            wait_until(lambda number=number: len(held(endpoint)) == number)
        return requests

    return stop


def test_a_held_worker_has_no_time_out_and_keeps_its_process(serve_cell, stopped, attach, ask_debug, wait_until):
    endpoint = serve_cell(STOPS, workers=2, response_timeout_s=1)
    pids = {worker["pid"] for worker in workers(endpoint)}
    [request] = stopped(endpoint)
    [hold] = held(endpoint)
    assert (hold["line"], hold["function"], hold["reason"]) == (7, "preprocess", "breakpoint")
    assert "test.ipynb, cell 1" in hold["file"]
    assert len(hold["request_ids"]) == 1
    assert 0 < hold["goes_on_in_s"] <= 120
    since = time.monotonic()
    debugger = attach(ask_debug(endpoint, "attach")["socket"])
    debugger.link.send("attach")
    wait_until(lambda: held(endpoint)[0]["debugger"] == "the test")
    assert held(endpoint)[0]["goes_on_in_s"] is None
    wait_until(lambda: time.monotonic() - since > 2.5)
    assert not request.is_answered
    debugger.prompted("c")
    assert request.answer() == (200, ["stop"])
    wait_until(lambda: held(endpoint) == [])
    assert {worker["pid"] for worker in workers(endpoint)} == pids
    assert [worker["restarts"] for worker in workers(endpoint)] == [0, 0]
    assert "gave no answer" not in endpoint.logs()


def test_the_time_out_goes_on_where_it_was(serve_cell, stopped, attach, ask_debug):
    text = STOPS.replace("breakpoint()", "breakpoint(); __import__('time').sleep(3600)")
    endpoint = serve_cell(text, response_timeout_s=0.5)
    [request] = stopped(endpoint)
    debugger = attach(ask_debug(endpoint, "attach")["socket"])
    debugger.link.send("attach")
    debugger.prompted("c")
    status, error = request.answer()
    assert (status, error["type"]) == (504, "ResponseTimeout")


@pytest.mark.parametrize("count", [1, 2])
def test_two_hundred_requests_are_answered_while_one_is_held(serve_cell, server, stopped, load, count):
    endpoint = serve_cell(STOPS, "holding", workers=count)
    [request] = stopped(endpoint)
    with load(endpoint.url) as clients:
        clients.wait_for(200)
        assert endpoint.stats()["state"] == "READY"
        assert [worker["state"] for worker in workers(endpoint)].count("HELD") == 1
        assert len(workers(endpoint, "stand-in")) == (1 if count == 1 else 0)
        assert 'nbserve_workers{endpoint="holding",state="HELD"} 1.0' in server.metrics()
    assert set(clients.statuses) == {200}
    assert not request.is_answered
    text = endpoint.logs()
    assert "worker 0 is held at" in text
    assert "line 7 in preprocess (request " in text
    assert "): nbserve attach holding; it goes on after 120 s" in text


def test_a_stand_in_leaves_when_nothing_is_held_any_more(serve_cell, stopped, attach, ask_debug, wait_until):
    endpoint = serve_cell(STOPS)
    [request] = stopped(endpoint)
    wait_until(lambda: [worker["state"] for worker in workers(endpoint, "stand-in")] == ["READY"])
    assert [worker["index"] for worker in endpoint.stats()["workers"]] == [0, 1]
    words = [sys.executable, "-m", "nbserve", "ps"]
    listed = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "    worker 0 pid" in listed
    assert "    stand-in 1 pid" in listed
    debugger = attach(ask_debug(endpoint, "attach")["socket"])
    debugger.link.send("attach")
    debugger.prompted("c")
    assert request.answer()[0] == 200
    wait_until(lambda: not workers(endpoint, "stand-in"))
    assert endpoint.predict(1) == [1]


def test_an_unconditional_breakpoint_holds_one_and_the_others_serve(serve_cell, asked, post, wait_until):
    endpoint = serve_cell(ALWAYS, workers=2)
    first = asked(endpoint.url, 0)
    wait_until(lambda: len(held(endpoint)) == 1)
    wait_until(lambda: post(endpoint.url, 1, timeout_s=5)[0] == 200)
    pid = held(endpoint)[0]["pid"]
    for number in range(50):
        status, other = post(endpoint.url, number)
        assert (status, other != pid) == (200, True)
    assert len(held(endpoint)) == 1
    assert not first.is_answered


def test_nobody_comes_and_it_goes_on_by_itself(serve_cell, stopped):
    endpoint = serve_cell(STOPS, hold_timeout_s=0.5)
    [request] = stopped(endpoint)
    assert request.answer() == (200, ["stop"])
    endpoint.configure(hold_timeout_s=77.0)
    stopped(endpoint)
    assert 70 < held(endpoint)[0]["goes_on_in_s"] <= 77


def test_a_batch_that_was_sent_ahead_is_run_by_others(serve_cell, asked, wait_until, tmp_path):
    text = """
import os, time
class H(nbserve.Handler):
    def handle(self, requests, context):
        if "stop" in requests:
            while not os.path.exists(PATH):
                time.sleep(0.01)
            breakpoint()
        return [os.getpid() for _ in requests]
"""
    flag = tmp_path / "flag"
    endpoint = serve_cell(text.replace("PATH", repr(str(flag))), max_batch_size=1)
    first = asked(endpoint.url, "stop")
    wait_until(lambda: workers(endpoint)[0]["state"] == "BUSY")
    ahead = [asked(endpoint.url, number) for number in range(5)]
    wait_until(lambda: endpoint.stats()["queued"] == 4)  # One of the five was sent ahead.
    flag.touch()
    answers = [request.answer() for request in ahead]
    assert [status for status, _ in answers] == [200] * 5
    assert held(endpoint)[0]["pid"] not in {pid for _, pid in answers}
    assert not first.is_answered


def test_a_new_version_waits_for_the_request_that_is_held(serve_cell, stopped, attach, ask_debug, wait_until):
    endpoint = serve_cell(STOPS, "replaced")
    [request] = stopped(endpoint)
    serve_cell(STOPS.replace("return [[x]", "return [[x, x]"), "replaced")
    assert endpoint.predict(1) == [1, 1]
    [hold] = held(endpoint)
    debugger = attach(ask_debug(endpoint, "attach")["socket"])
    debugger.link.send("attach")
    debugger.prompted("c")
    assert request.answer() == (200, ["stop"])
    wait_until(lambda: not psutil.pid_exists(hold["pid"]))
    assert endpoint.predict(1) == [1, 1]


def test_stopping_the_endpoint_ends_what_is_held_at_once(serve_cell, stopped, server):
    endpoint = serve_cell(STOPS, "ended", workers=2)
    requests = stopped(endpoint, 1)
    pids = [worker["pid"] for worker in endpoint.stats()["workers"]]
    begun = time.monotonic()
    endpoint.stop()
    assert time.monotonic() - begun < 5
    assert [request.answer()[0] for request in requests] == [503]
    assert not any(psutil.pid_exists(pid) for pid in pids)
    with pytest.raises(NotFound):
        server.endpoint("ended")
    serve_cell(STOPS, "ended")


def test_stopping_the_server_ends_what_is_held_at_once(make_bundle, stopped, attach, asked, wait_until):
    server = Server.start().ready()
    endpoint = server.deploy(make_bundle(STOPS).path)
    [request] = stopped(endpoint)
    attach(held(endpoint)[0]["socket"]).link.send("attach")
    begun = time.monotonic()
    server.stop()
    assert time.monotonic() - begun < 10
    assert request.answer()[0] == 503


def test_a_held_worker_that_is_killed_is_replaced_and_its_request_tried_again(serve_cell, asked, wait_until, tmp_path):
    text = ALWAYS.replace("breakpoint()", "if requests[0] == 'stop' and not os.path.exists(PATH): breakpoint()")
    flag = tmp_path / "flag"
    endpoint = serve_cell(text.replace("PATH", repr(str(flag))), workers=2)
    request = asked(endpoint.url, "stop")
    wait_until(lambda: len(held(endpoint)) == 1)
    pid = held(endpoint)[0]["pid"]
    flag.touch()
    os.kill(pid, signal.SIGKILL)
    assert request.answer()[0] == 200
    assert held(endpoint) == []
    wait_until(lambda: [worker["state"] for worker in workers(endpoint)] == ["READY", "READY"])


def test_a_held_worker_that_is_configured_away_goes_when_it_was_resumed(
    serve_cell, asked, attach, ask_debug, wait_until
):
    endpoint = serve_cell(STOPS, workers=2)
    answer = ask_debug(endpoint, "stop", 1)
    debugger = attach(answer["socket"])
    debugger.link.send("stop", at="preprocess")
    debugger.next("armed")
    request = asked(endpoint.url, 5)
    debugger.next("prompt")
    assert endpoint.configure(workers=1)["workers"] == 1
    assert [(worker["index"], worker["state"]) for worker in workers(endpoint)] == [(0, "READY"), (1, "DRAINING")]
    assert held(endpoint)[0]["pid"] == answer["pid"]
    assert endpoint.predict(6) == [6]
    debugger.link.send("reply", text="c")
    assert request.answer() == (200, [5])
    wait_until(lambda: not psutil.pid_exists(answer["pid"]))
    assert [worker["index"] for worker in workers(endpoint)] == [0]


def test_a_worker_can_be_held_in_initialize_for_longer_than_it_may_take(
    server, make_bundle, attach, ask_debug, wait_until
):
    text = "class H(nbserve.Handler):\n    def initialize(self, context):\n        breakpoint()\n" + "".join(
        STOPS.splitlines(keepends=True)[2:]
    )
    deployed = []
    bundle = make_bundle(text, "slowly", start_timeout_s=1.0)
    deploying = threading.Thread(target=lambda: deployed.append(server.deploy(bundle.path, {"start_timeout_s": 1.0})))
    deploying.start()
    endpoint = Endpoint(server, "slowly")
    wait_until(lambda: server.endpoints() and held(endpoint))
    since = time.monotonic()
    assert held(endpoint)[0]["request_ids"] == []
    assert endpoint.stats()["workers"][0]["state"] == "HELD"
    wait_until(lambda: time.monotonic() - since > 2)
    debugger = attach(ask_debug(endpoint, "attach")["socket"])
    debugger.link.send("attach")
    debugger.prompted("c")
    deploying.join()
    assert deployed[0].predict(4) == [4]
    deployed[0].stop()


def test_c_code_that_holds_the_gil_leaves_the_cells_line_in_the_log(serve_cell, asked, wait_until):
    text = """
import re
class H(nbserve.Handler):
    def handle(self, requests, context):
        if "hang" in requests:
            re.match("(a+)+$", "a" * 64 + "b")  # Longer than the world will stand, and never without the GIL.
        return [len(requests)] * len(requests)
"""
    endpoint = serve_cell(text, response_timeout_s=0.5)
    before = workers(endpoint)[0]["pid"]
    assert asked(endpoint.url, "hang").answer()[0] == 504
    assert "line 7 in handle" in endpoint.logs().split("its stack:")[-1]
    wait_until(lambda: workers(endpoint)[0]["state"] == "READY")
    assert workers(endpoint)[0]["pid"] != before

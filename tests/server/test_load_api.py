"""Load that the server puts on an endpoint: it goes over HTTP, tells how far it is, and ends with everybody."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from nbserve.deployment import Server
from nbserve.errors import BadRequest, NotFound
from nbserve.verbs import Endpoint

pytestmark = pytest.mark.process

ECHO = """
class H(nbserve.Handler):
    def handle(self, requests, context):
        for x in requests:
            if x == "bad":
                raise ValueError("no good")
        return requests
"""
HANGS = """
import time
class H(nbserve.Handler):
    def handle(self, requests, context):
        time.sleep(3600)
"""


def generators(server: Server) -> list[psutil.Process]:
    """The load generator's processes of this server."""
    children = psutil.Process(server.run_file.pid).children()
    return [child for child in children if "nbserve.load" in child.cmdline()]


def load_of(endpoint: Endpoint, holds: Callable[[Any], bool]) -> Any:
    """What the stream tells of the load as soon as it holds."""
    for line in endpoint.stream(0.1, limit_s=60):
        if line["event"] == "stats" and line["load"] is not None and holds(line["load"]):
            return line["load"]
    raise AssertionError("the stream ended before it came true")


def test_clients_ask_what_was_recorded_and_the_outcome_stays(serve_cell, wait_until):
    endpoint = serve_cell(ECHO)
    endpoint.predict([1, 2])
    began_s = time.time()
    status = endpoint.load(clients=3, seconds=1.5)
    assert {**status, "began_s": 0} == {
        "clients": 3,
        "rate": None,
        "seconds": 1.5,
        "began_s": 0,
        "is_running": True,
        "requests": 0,
        "errors": {},
        "outcome": None,
    }
    assert began_s <= status["began_s"] <= time.time()
    running = load_of(endpoint, lambda load: load["requests"])
    assert (running["is_running"], running["outcome"]) == (True, None)
    ended = load_of(endpoint, lambda load: not load["is_running"])
    assert ended["requests"] == ended["outcome"]["requests"] > running["requests"]
    assert ended["outcome"]["seconds"] == pytest.approx(1.5, abs=0.5)
    assert ended["outcome"]["latency_ms"].keys() >= {"p50", "p99"}
    assert endpoint.stats()["requests"] == {"200": ended["requests"] + 1}
    assert generators(endpoint.server) == []
    assert load_of(endpoint, bool) == ended, "who comes later sees it too"


def test_a_rate_of_given_requests(serve_cell):
    endpoint = serve_cell(ECHO)
    endpoint.load(rate=50, seconds=1, requests=["bad", [1]])
    ended = load_of(endpoint, lambda load: not load["is_running"])
    assert (ended["clients"], ended["rate"], ended["requests"]) == (None, 50.0, 50)
    assert ended["errors"] == ended["outcome"]["errors"] == {"500": 25}


def test_a_new_one_takes_the_place_of_the_one_that_runs(serve_cell):
    endpoint = serve_cell(ECHO)
    endpoint.predict(1)
    endpoint.load(clients=1, seconds=600)
    load_of(endpoint, lambda load: load["requests"])
    [first] = generators(endpoint.server)
    status = endpoint.load(clients=2, seconds=600)
    assert (status["clients"], status["requests"], status["is_running"]) == (2, 0, True)
    [second] = generators(endpoint.server)
    assert second.pid != first.pid
    load_of(endpoint, lambda load: load["requests"])
    stopped = endpoint.stop_load()
    assert (stopped["is_running"], stopped["clients"]) == (False, 2)
    assert stopped["outcome"]["requests"] == stopped["requests"] > 0
    assert endpoint.stop_load() == stopped
    assert generators(endpoint.server) == []


def test_what_a_handler_holds_up_is_not_waited_for(serve_cell):
    endpoint = serve_cell(HANGS, response_timeout_s=60.0)
    endpoint.load(clients=1, seconds=600, requests=[1])
    for line in endpoint.stream(0.1, limit_s=60):
        if line["event"] == "stats" and line["endpoint"]["workers"][0]["state"] == "BUSY":
            break
    stopped = endpoint.stop_load()
    assert (stopped["is_running"], stopped["requests"], stopped["outcome"]) == (False, 0, None)
    assert generators(endpoint.server) == []
    endpoint.configure(response_timeout_s=0.1)


def test_it_ends_with_the_endpoint(serve_cell):
    endpoint = serve_cell(ECHO)
    endpoint.predict(1)
    endpoint.load(clients=4, seconds=600)
    load_of(endpoint, lambda load: load["requests"])
    [process] = generators(endpoint.server)
    endpoint.stop()
    assert not process.is_running()
    assert serve_cell(ECHO, endpoint.name).predict(1) == 1


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_it_ends_with_the_server(make_bundle, wait_until, how):
    server = Server.start().ready()
    endpoint = server.deploy(make_bundle(ECHO, "h").path)
    endpoint.predict(1)
    endpoint.load(clients=4, seconds=600)
    load_of(endpoint, lambda load: load["requests"])
    [process] = generators(server)
    if how == "stop":
        server.stop()
    else:
        psutil.Process(server.run_file.pid).kill()
        wait_until(lambda: not server.is_alive())
    wait_until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
    assert server.server_id not in [found.server_id for found in Server.find()]


def test_a_generator_that_dies_says_so(serve_cell):
    endpoint = serve_cell(ECHO)
    endpoint.predict(1)
    endpoint.load(clients=1, seconds=600)
    load_of(endpoint, lambda load: load["requests"])
    [process] = generators(endpoint.server)
    process.kill()
    ended = load_of(endpoint, lambda load: not load["is_running"])
    assert (ended["errors"], ended["outcome"]) == ({"the load generator ended": 1}, None)


def test_nothing_to_ask_says_what_to_do(serve_cell):
    endpoint = serve_cell(ECHO, "silent")
    with pytest.raises(BadRequest, match=r"send one first \(%serve predict silent"):
        endpoint.load(clients=1)
    with pytest.raises(NotFound, match="no load was put on silent"):
        endpoint.stop_load()
    with pytest.raises(NotFound, match="there is no endpoint 'nobody'"):
        Endpoint(endpoint.server, "nobody").load(clients=1)


def test_a_wrong_wish_is_refused(serve_cell):
    endpoint = serve_cell(ECHO)
    with pytest.raises(BadRequest, match="clients is 0; it takes a whole number from 1 to 1000"):
        endpoint.load(clients=0)

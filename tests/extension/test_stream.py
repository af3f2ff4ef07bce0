"""The live stream as a WebSocket: its lines, and how it ends from either side."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import websocket

from nbserve.deployment import Endpoint, Server

from .conftest import TOKEN, Jupyter
from .test_predictions import connections

pytestmark = pytest.mark.process

ECHO = """
class H(nbserve.Handler):
    def handle(self, requests, context):
        return requests
"""


@contextmanager
def following(jupyter: Jupyter, endpoint: Endpoint, query: str = "") -> Iterator[websocket.WebSocket]:
    address = f"{jupyter.socket_url}nbserve/api/endpoints/{endpoint.name}/stream{query}"
    socket = websocket.create_connection(address, header=[f"Authorization: token {TOKEN}"], timeout=60)
    try:
        yield socket
    finally:
        socket.close()
        # It leaves the connection open where the other end has closed the WebSocket.
        socket.shutdown()


def line(socket: websocket.WebSocket) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(socket.recv())
    return found


def rest(socket: websocket.WebSocket) -> tuple[list[str], int]:
    """The events up to the end, and the code that the socket was closed with."""
    events = []
    while True:
        opcode, data = socket.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return events, int.from_bytes(data[:2], "big")
        events.append(json.loads(data)["event"])


def test_lines_come_and_several_followers_agree(jupyter: Jupyter, serve_cell) -> None:
    endpoint = serve_cell(ECHO)
    with following(jupyter, endpoint) as one, following(jupyter, endpoint, "?interval_s=0.1") as other:
        assert [line(one)["event"] for _ in range(3)] == ["begin", "stats", "stats"]
        assert line(other)["event"] == "begin"
        stats = line(other)
        assert stats["endpoint"]["name"] == endpoint.name
        assert endpoint.server.run_file.token not in json.dumps(stats)
        jupyter.call("PATCH", f"nbserve/api/endpoints/{endpoint.name}", {"queue_size": 99})
        for socket in (one, other):
            while line(socket)["endpoint"]["settings"]["queue_size"] != 99:
                pass


def test_a_stopped_endpoint_ends_it(jupyter: Jupyter, server: Server, make_bundle) -> None:
    endpoint = server.deploy(make_bundle(ECHO, "brief").path)
    with following(jupyter, endpoint) as socket:
        assert line(socket)["event"] == "begin"
        endpoint.stop()
        events, code = rest(socket)
    assert (set(events[:-1]) - {"stats"}, events[-1], code) == (set(), "gone", 1000)


def test_a_server_that_dies_ends_it(jupyter: Jupyter, make_bundle, wait_until) -> None:
    server = Server.start().ready()
    endpoint = server.deploy(make_bundle(ECHO, "mortal").path)
    with following(jupyter, endpoint) as socket:
        assert line(socket)["event"] == "begin"
        os.kill(server.run_file.pid, signal.SIGKILL)
        assert rest(socket)[1] == 1001
    wait_until(lambda: not server.is_alive())
    # What it left on disk goes with the next look at what there is.
    wait_until(lambda: jupyter.ask("GET", f"nbserve/api/endpoints/{endpoint.name}").status == 404)


def test_a_closed_socket_is_not_followed_any_more(jupyter: Jupyter, serve_cell, wait_until) -> None:
    endpoint = serve_cell(ECHO)
    url = endpoint.server.run_file.management_url
    with (
        following(jupyter, endpoint, "?interval_s=60") as polite,
        following(jupyter, endpoint, "?interval_s=60") as rude,
    ):
        assert line(polite)["event"] == line(rude)["event"] == "begin"
        assert connections(jupyter, url) == 2
        # Neither is told by a next line: that comes in a minute.
        polite.close()
        wait_until(lambda: connections(jupyter, url) == 1)
        rude.shutdown()
        wait_until(lambda: connections(jupyter, url) == 0)


@pytest.mark.parametrize("text", ["0", "61", "soon"])
def test_a_wrong_interval_is_refused_before_the_socket_opens(jupyter: Jupyter, serve_cell, text: str) -> None:
    with (
        pytest.raises(websocket.WebSocketBadStatusException) as refused,
        following(jupyter, serve_cell(ECHO), f"?interval_s={text}"),
    ):
        pass
    assert refused.value.status_code == 400
    assert json.loads(refused.value.resp_body)["type"] == "BadRequest"


def test_nothing_goes_wrong_in_jupyter(jupyter: Jupyter) -> None:
    log = jupyter.log.read_text()
    assert "Traceback" not in log
    assert "Uncaught" not in log

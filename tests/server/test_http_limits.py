"""Time-outs, limits and draining of HTTP connections."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import pytest

from tests.server.rawhttp import WAIT_S, Start, get, post, until

pytestmark = pytest.mark.process


def test_a_head_that_drips_in_is_cut_off(start: Start) -> None:
    client = start(header_timeout_s=0.3).connect()
    deadline = time.monotonic() + WAIT_S
    client.send(b"GET / HTTP/1.1\r\n")
    client.socket.settimeout(0.05)
    while time.monotonic() < deadline:
        try:
            client.send(b"A: b\r\n")
            if client.socket.recv(1, socket.MSG_PEEK):
                break
        except TimeoutError:
            continue
    client.socket.settimeout(WAIT_S)
    assert client.reply().status == 408


def test_a_body_that_stops_coming_is_cut_off(start: Start) -> None:
    client = start(body_timeout_s=0.2).connect()
    client.send(post("/echo", b"abc")[:-1])
    assert client.reply().status == 408
    assert client.is_closed()


def test_a_body_that_comes_slowly_is_waited_for(start: Start) -> None:
    client = start(body_timeout_s=0.4).connect()
    data = post("/echo", b"abcdef")
    client.send(data[:-6])
    for byte in data[-6:]:
        time.sleep(0.15)
        client.send(bytes([byte]))
    assert client.reply().body == b"abcdef"


def test_an_idle_connection_is_closed_without_a_word(start: Start) -> None:
    server = start(keep_alive_timeout_s=0.2)
    client = server.connect()
    client.send(post("/echo", b"a"))
    assert client.reply().status == 200
    assert client.is_closed()
    assert server.connect().is_closed()


def test_waiting_for_an_answer_is_not_idle(start: Start) -> None:
    server = start(keep_alive_timeout_s=0.1, header_timeout_s=0.1, body_timeout_s=0.1)
    client = server.connect()
    client.send(post("/hold", b"a"))
    (exchange,) = server.held(1)
    time.sleep(0.5)
    server.call(lambda: exchange.answer(200, b"late"))
    assert client.reply().body == b"late"


def test_one_connection_too_many_is_told_so(start: Start) -> None:
    server = start(max_connections=2)
    clients = [server.connect() for _ in range(2)]
    until(lambda: server.server.open_connections == 2)
    turned_away = server.connect()
    assert turned_away.reply().status == 503
    assert turned_away.is_closed()
    turned_away.reset()
    clients[0].send(post("/echo", b"a"))
    assert clients[0].reply().body == b"a"
    clients[1].reset()
    until(lambda: server.server.open_connections == 1)
    late = server.connect()
    late.send(post("/echo", b"b"))
    assert late.reply().body == b"b"


def test_a_client_that_does_not_read_is_read_from_no_more(start: Start) -> None:
    server = start(max_pipelined=1000)
    client = server.connect(receive_bytes=4096)
    wanted = 400
    client.send(get("/big?100000") * wanted)
    stalled_at = _stalled(lambda: len(server.routes.seen))
    assert 0 < stalled_at < wanted
    assert all(len(client.reply().body) == 100_000 for _ in range(wanted))


def test_a_client_that_never_reads_is_cut(start: Start) -> None:
    server = start(body_timeout_s=0.3)
    client = server.connect(receive_bytes=4096)
    client.send(get("/big?50000000"))
    until(lambda: len(server.routes.seen) == 1)
    until(lambda: server.server.open_connections == 0)


def test_a_client_that_reads_slowly_is_not_cut(start: Start) -> None:
    client = start(body_timeout_s=0.5).connect()
    client.send(get("/big?20000000"))
    received, deadline = 0, time.monotonic() + 1.5
    while received < 20_000_000:
        piece = client.socket.recv(65_536)
        assert piece, f"cut after {received} bytes"
        received += len(piece)
        if time.monotonic() < deadline:
            time.sleep(0.01)


def test_drain_answers_what_is_under_way_and_closes_the_rest(start: Start) -> None:
    server = start()
    idle, waiting, sending = server.connect(), server.connect(), server.connect()
    idle.send(post("/echo", b"a"))
    idle.reply()
    waiting.send(post("/hold", b"a") + post("/hold", b"b"))
    sending.send(post("/echo", b"abc")[:-1])
    first, second = server.held(2)
    until(lambda: server.call(lambda: sum(c._partial is not None for c in server.server._connections)) == 1)
    drained = asyncio.run_coroutine_threadsafe(server.server.drain(WAIT_S), server.loop)
    assert idle.is_closed()
    sending.send(b"c")
    reply = sending.reply()
    assert (reply.body, reply.headers["connection"]) == (b"abc", "close")
    assert not drained.done()
    server.call(lambda: first.answer(200, b"first"))
    assert "connection" not in waiting.reply().headers
    server.call(lambda: second.answer(200, b"second"))
    assert waiting.reply().headers["connection"] == "close"
    assert drained.result(WAIT_S)
    with pytest.raises(OSError, match="refused"):
        server.connect()


def test_drain_gives_up_after_its_time(start: Start) -> None:
    server = start()
    client = server.connect()
    client.send(post("/hold", b"a"))
    server.held(1)
    assert not server.wait_for(server.server.drain(0.1))
    until(lambda: server.server.open_connections == 0)


def _stalled(count: Callable[[], int]) -> int:
    """The count once it has not changed for a while."""
    last, since = count(), time.monotonic()
    while time.monotonic() - since < 0.3:
        time.sleep(0.01)
        if count() != last:
            last, since = count(), time.monotonic()
    return last

"""The HTTP server over real sockets, on both event loops."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import pytest
import uvloop

from nbserve.config import ServerConfig
from nbserve.errors import HttpError, NotFound, Overloaded
from nbserve.server.http.server import Exchange, HttpServer

pytestmark = pytest.mark.process

WAIT_S = 10.0
T = TypeVar("T")


class TestRoutes:
    """Answers by path: /hold is answered by the test, the others at once."""

    __test__ = False

    def __init__(self) -> None:
        self.held: list[Exchange] = []
        self.seen: list[tuple[bytes, bytes, bytes]] = []

    def check(self, exchange: Exchange) -> None:
        if exchange.path == b"/missing":
            raise NotFound("there is nothing")
        if exchange.path == b"/post" and exchange.method != b"POST":
            raise HttpError(405, "only POST", b"Allow: POST\r\n")

    def dispatch(self, exchange: Exchange) -> None:
        self.seen.append((exchange.method, exchange.path, exchange.body))
        if exchange.path == b"/hold":
            self.held.append(exchange)
        elif exchange.path == b"/boom":
            raise RuntimeError("a secret")
        elif exchange.path == b"/full":
            raise Overloaded("32 requests already wait", retry_after_s=7)
        elif exchange.path == b"/big":
            exchange.answer(200, memoryview(bytes(int(exchange.query))), b"application/octet-stream")
        elif exchange.path == b"/nothing":
            exchange.answer(204, b"ignored", b"text/plain")
        else:
            exchange.answer(200, exchange.body, exchange.content_type or b"text/plain", b"X-Further: yes\r\n")


class Running:
    """A server in a thread of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, config: ServerConfig) -> None:
        self.loop = loop
        self.routes = TestRoutes()
        self.server = HttpServer(self.routes, config, loop)
        self._errors: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: self._errors.append(context))
        self._thread = threading.Thread(target=loop.run_forever)
        self._thread.start()
        self.port = self.wait_for(self.server.listen("127.0.0.1", 0))
        self._clients: list[Client] = []

    def wait_for(self, awaitable: Awaitable[T]) -> T:
        async def run() -> T:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(WAIT_S)

    def call(self, function: Callable[[], T]) -> T:
        async def run() -> T:
            return function()

        return self.wait_for(run())

    def connect(self, receive_bytes: int | None = None) -> Client:
        client = Client(self.port, receive_bytes)
        self._clients.append(client)
        return client

    def held(self, count: int) -> list[Exchange]:
        until(lambda: len(self.routes.held) >= count)
        return self.routes.held

    def stop(self) -> None:
        for client in self._clients:
            client.close()
        self.call(self.server.close)
        until(lambda: self.server.open_connections == 0)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WAIT_S)
        self.loop.close()
        assert not self._errors


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """A raw connection that reads answers one by one."""

    def __init__(self, port: int, receive_bytes: int | None) -> None:
        self.socket = socket.socket()
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(WAIT_S)
        self._file = self.socket.makefile("rb")
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.close()
            raise

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reply(self, has_body: bool = True) -> Reply:
        status = int(self._file.readline().split()[1])
        headers: dict[str, str] = {}
        while (line := self._file.readline()) != b"\r\n":
            name, _, value = line.decode().partition(":")
            assert name.lower() not in headers, f"{name} twice"
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", 0)) if has_body else 0
        return Reply(status, headers, self._file.read(length))

    def is_closed(self) -> bool:
        """The server closed in order: nothing follows, and there is no reset."""
        return self._file.read(1) == b""

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()


Start = Callable[..., Running]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    servers: list[Running] = []

    def start(**settings: Any) -> Running:
        servers.append(Running(request.param(), ServerConfig().changed(settings)))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.002)


def post(path: str, body: bytes, *lines: str) -> bytes:
    head = "".join(
        f"{line}\r\n" for line in (f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *lines)
    )
    return head.encode() + b"\r\n" + body


def get(path: str, *lines: str, method: str = "GET") -> bytes:
    return "".join(f"{line}\r\n" for line in (f"{method} {path} HTTP/1.1", "Host: x", *lines, "")).encode()


def chunked(path: str, *chunks: bytes) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
    return get(path, "Transfer-Encoding: chunked", method="POST") + body


def test_answers_carry_length_type_and_date(start: Start) -> None:
    client = start().connect()
    client.send(post("/echo", b"[1]", "Content-Type: application/json"))
    status, headers, body = client.reply()
    assert (status, body) == (200, b"[1]")
    assert headers["content-type"] == "application/json"
    assert headers["x-further"] == "yes"
    assert headers["date"].endswith("GMT")
    assert "connection" not in headers


def test_a_connection_takes_one_request_after_the_other(start: Start) -> None:
    server = start()
    client = server.connect()
    for number in range(3):
        client.send(post("/echo", b"%d" % number))
        assert client.reply().body == b"%d" % number
    assert server.server.open_connections == 1


def test_pipelined_requests_are_answered_in_order_whatever_is_ready_first(start: Start) -> None:
    server = start()
    client = server.connect()
    client.send(post("/hold", b"a") + post("/echo", b"b") + get("/missing") + post("/hold", b"c") + post("/echo", b"d"))
    first, second = server.held(2)
    server.call(lambda: second.answer(200, b"second"))
    server.call(lambda: first.answer(200, b"first"))
    replies = [client.reply() for _ in range(5)]
    assert [reply.status for reply in replies] == [200, 200, 404, 200, 200]
    assert [reply.body for reply in replies if reply.status == 200] == [b"first", b"b", b"second", b"d"]


def test_no_more_than_max_pipelined_requests_are_taken(start: Start) -> None:
    server = start(max_pipelined=3)
    client = server.connect()
    client.send(post("/hold", b"x") * 8)
    for answered in range(8):
        exchange = server.held(answered + 1)[answered]
        assert len(server.routes.held) <= answered + 3
        server.call(lambda exchange=exchange: exchange.answer(200, b"ok"))
        assert client.reply().body == b"ok"


def test_many_pipelined_requests_answered_at_once_all_arrive(start: Start) -> None:
    client = start(max_pipelined=4).connect()
    client.send(b"".join(post("/echo", b"%d" % number) for number in range(500)))
    assert [client.reply().body for _ in range(500)] == [b"%d" % number for number in range(500)]


def test_a_body_may_come_in_any_pieces(start: Start) -> None:
    client = start().connect()
    for byte in post("/echo", b"hello", "Content-Type: text/plain"):
        client.send(bytes([byte]))
    assert client.reply().body == b"hello"


def test_a_large_body_goes_both_ways(start: Start) -> None:
    body = bytes(range(256)) * 8192
    client = start().connect()
    sender = threading.Thread(target=client.send, args=(post("/echo", body) * 2,))
    sender.start()
    assert client.reply().body == body
    assert client.reply().body == body
    sender.join()


def test_chunked_bodies_are_put_together_and_the_next_request_follows(start: Start) -> None:
    client = start().connect()
    client.send(chunked("/echo", b"hello, ", b"x" * 5000, b"world") + post("/echo", b"next"))
    assert client.reply().body == b"hello, " + b"x" * 5000 + b"world"
    assert client.reply().body == b"next"


def test_trailers_are_dropped(start: Start) -> None:
    server = start()
    client = server.connect()
    client.send(chunked("/echo", b"a")[:-2] + b"X-Sum: 1\r\n\r\n" + post("/echo", b"b"))
    assert client.reply().body == b"a"
    assert client.reply().body == b"b"


def test_head_has_the_length_but_no_body(start: Start) -> None:
    client = start().connect()
    client.send(get("/big?10", method="HEAD") + post("/echo", b"next"))
    reply = client.reply(has_body=False)
    assert (reply.status, reply.headers["content-length"]) == (200, "10")
    assert client.reply().body == b"next"


def test_204_has_neither_body_nor_length(start: Start) -> None:
    client = start().connect()
    client.send(get("/nothing") + post("/echo", b"next"))
    reply = client.reply()
    assert (reply.status, "content-length" in reply.headers) == (204, False)
    assert client.reply().body == b"next"


def test_empty_lines_before_a_request_are_skipped(start: Start) -> None:
    client = start().connect()
    client.send(b"\r\n\r\n" + post("/echo", b"a") + b"\r\n" + post("/echo", b"b"))
    assert [client.reply().body, client.reply().body] == [b"a", b"b"]


def test_a_proxy_style_target_is_understood(start: Start) -> None:
    server = start()
    client = server.connect()
    client.send(post("http://host:80/echo?q=1", b"a"))
    assert client.reply().body == b"a"
    assert server.routes.seen == [(b"POST", b"/echo", b"a")]


def test_connection_close_is_granted_and_ends_the_connection(start: Start) -> None:
    server = start()
    client = server.connect()
    client.send(post("/echo", b"a", "Connection: close") + post("/echo", b"never"))
    reply = client.reply()
    assert (reply.body, reply.headers["connection"]) == (b"a", "close")
    assert client.is_closed()
    assert len(server.routes.seen) == 1


def test_http_1_0_closes_unless_asked_to_keep_alive(start: Start) -> None:
    server = start()
    client = server.connect()
    client.send(b"POST /echo HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na")
    assert client.reply().headers["connection"] == "keep-alive"
    client.send(b"POST /echo HTTP/1.0\r\nContent-Length: 1\r\n\r\nb")
    reply = client.reply()
    assert (reply.body, reply.headers["connection"]) == (b"b", "close")
    assert client.is_closed()


def test_an_upgrade_is_ignored_and_the_body_still_read(start: Start) -> None:
    client = start().connect()
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAA")
    client.send(post("/echo", b"body", *upgrade) + post("/echo", b"next"))
    assert [client.reply().body, client.reply().body] == [b"body", b"next"]


def test_continue_is_sent_once_the_head_is_accepted(start: Start) -> None:
    client = start().connect()
    head, body = post("/echo", b"hello", "Expect: 100-continue").split(b"\r\n\r\n")
    client.send(head + b"\r\n\r\n")
    assert client.reply().status == 100
    client.send(body)
    assert client.reply().body == b"hello"


@pytest.mark.parametrize(
    ("path", "length", "status"), [("/missing", "5", 404), ("/echo", "101", 413), ("/post-only", "x", 400)]
)
def test_a_refused_head_gets_no_continue(start: Start, path: str, length: str, status: int) -> None:
    client = start(max_body_bytes=100).connect()
    client.send(get(path, "Expect: 100-continue", f"Content-Length: {length}", method="POST"))
    assert client.reply().status == status
    assert client.is_closed()


def test_continue_waits_for_the_answers_before_it(start: Start) -> None:
    server = start()
    client = server.connect()
    client.send(post("/hold", b"a") + get("/echo", "Expect: 100-continue", "Content-Length: 1", method="POST"))
    (first,) = server.held(1)
    server.call(lambda: first.answer(200, b"first"))
    assert client.reply().body == b"first"
    assert client.reply().status == 100
    client.send(b"b")
    assert client.reply().body == b"b"


def test_no_continue_for_a_body_that_is_already_there(start: Start) -> None:
    client = start().connect()
    client.send(post("/echo", b"a", "Expect: 100-continue"))
    assert client.reply().status == 200


def test_an_unknown_expectation_fails(start: Start) -> None:
    client = start().connect()
    client.send(post("/echo", b"a", "Expect: a miracle"))
    assert client.reply().status == 417


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 505),
        (b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n", 400),
        (b"GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET \xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (get("/", "Content-Length: 1", "Content-Length: 2") + b"a", 400),
        (get("/", "Content-Length: 1", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
        (get("/", "Transfer-Encoding: chunked", "Content-Length: 1") + b"0\r\n\r\n", 400),
        (get("/", "Content-Length: -1"), 400),
        (get("/", "Content-Length: 1, 1") + b"a", 400),
        (get("/", "Content-Length: 99999999999999999999999"), 400),
        (get("/", "Transfer-Encoding: gzip"), 400),
        (get("/", "Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n", 501),
        (get("/", "Transfer-Encoding: chunked, identity") + b"0\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (get("/", "Transfer-Encoding: chunked") + b"x\r\n", 400),
        (get("/", "Transfer-Encoding: chunked") + b"1\n", 400),
        (get("/", "Transfer-Encoding: chunked") + b"1\r\nab\r\n", 400),
        (get("/", "Transfer-Encoding: chunked") + b"1;" + b"e" * 2000, 400),
        (get("/", "Transfer-Encoding: chunked") + b"0\r\nno trailer\r\n\r\n", 400),
        (get("/", "Transfer-Encoding: chunked") + b"0\r\n" + b"a: b\r\n" * 3000, 431),
        (get("/", "Transfer-Encoding: chunked") + b"65\r\n", 413),
        (get("/", "Transfer-Encoding: chunked") + b"ffffffffffffffff\r\n", 400),
        (get("/", "Content-Length: 101"), 413),
        (get("/", "A: " + "b" * 3000), 431),
        (b"GET /" + b"a" * 3000, 431),
    ],
)
def test_what_http_forbids_is_refused_and_the_connection_closed(start: Start, data: bytes, status: int) -> None:
    server = start(max_body_bytes=100, max_header_bytes=2000)
    client = server.connect()
    client.send(data)
    reply = client.reply()
    assert reply.status == status
    assert json.loads(reply.body)["code"] == status
    assert reply.headers["connection"] == "close"
    assert client.is_closed()
    assert server.routes.seen == []


def test_a_refusal_waits_for_the_answers_before_it(start: Start) -> None:
    server = start()
    client = server.connect()
    client.send(post("/hold", b"a") + b"nonsense\r\n\r\n" + post("/hold", b"b"))
    (first,) = server.held(1)
    server.call(lambda: first.answer(200, b"first"))
    assert [client.reply().status, client.reply().status] == [200, 400]
    assert client.is_closed()
    assert len(server.routes.seen) == 1


def test_a_refused_request_that_is_there_in_full_keeps_the_connection(start: Start) -> None:
    client = start().connect()
    client.send(post("/missing", b"body") + get("/post") + post("/post", b"a"))
    assert client.reply().status == 404
    reply = client.reply()
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert client.reply().body == b"a"


def test_the_answer_to_a_body_too_large_arrives_although_the_client_goes_on_sending(start: Start) -> None:
    client = start(max_body_bytes=1000).connect()
    body = bytes(8_000_000)
    client.send(post("/echo", body))
    assert client.reply().status == 413
    assert client.is_closed()


def test_a_full_queue_says_when_to_come_back(start: Start) -> None:
    client = start().connect()
    client.send(post("/full", b""))
    reply = client.reply()
    assert (reply.status, reply.headers["retry-after"]) == (503, "7")
    assert json.loads(reply.body) == {"code": 503, "type": "Overloaded", "message": "32 requests already wait"}


def test_an_error_inside_is_logged_and_kept_from_clients(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    client = start().connect()
    with caplog.at_level(logging.ERROR):
        client.send(post("/boom", b"") + post("/echo", b"next"))
        reply = client.reply()
    assert reply.status == 500
    assert b"secret" not in reply.body
    assert "a secret" in caplog.text
    assert client.reply().body == b"next"


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


@pytest.mark.parametrize("leave", ["reset", "close"])
def test_a_client_that_left_does_not_disturb_who_answers(start: Start, leave: str) -> None:
    """uvloop raises in `write` and `writelines` then, which once closed the link to a worker."""
    server = start()
    leaver, stayer = server.connect(), server.connect()
    leaver.send(post("/hold", b"a") * 3)
    held = server.held(3)
    assert not held[0].is_gone
    stayer.send(post("/hold", b"b"))
    server.held(4)
    if leave == "reset":
        leaver.reset()
    else:
        leaver.close()
    until(lambda: held[0].is_gone and held[2].is_gone)

    def answer_all() -> None:
        for exchange in held:
            exchange.answer(200, b"small")
            exchange.answer(200, bytes(200_000))

    server.call(answer_all)
    assert stayer.reply().body == b"small"


def test_answers_to_a_client_that_leaves_meanwhile_raise_nothing(start: Start) -> None:
    server = start()
    client = server.connect(receive_bytes=4096)
    client.send(post("/hold", b"a") * 50)
    held = list(server.held(50))

    def answer_as_the_client_resets() -> None:
        for number, exchange in enumerate(held):
            if number == 5:
                client.reset()
            exchange.answer(200, bytes(100_000))

    server.call(answer_as_the_client_resets)
    until(lambda: server.server.open_connections == 0)


@pytest.mark.parametrize("length", [10, 200_000])
def test_an_answer_between_a_broken_write_and_the_news_of_it_is_dropped(
    start: Start, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The transport is closing, but the connection has not been told yet and its exchanges do not look gone."""
    server = start()
    client = server.connect()
    client.send(post("/hold", b"a") * 20)
    held = list(server.held(20))

    def answer_on_a_closing_transport() -> None:
        (connection,) = server.server._connections
        connection._transport.abort()
        assert not held[0].is_gone
        for exchange in held:
            exchange.answer(200, bytes(length))

    server.call(answer_on_a_closing_transport)
    until(lambda: server.server.open_connections == 0)
    assert not caplog.records


def test_a_client_that_leaves_in_its_body_leaves_nothing(start: Start) -> None:
    server = start()
    client = server.connect()
    client.send(post("/echo", b"abc")[:-1])
    until(lambda: server.server.open_connections == 1)
    client.reset()
    until(lambda: server.server.open_connections == 0)
    assert server.routes.seen == []


def test_an_exchange_is_answered_once(start: Start) -> None:
    server = start()
    client = server.connect()
    client.send(post("/hold", b"a") + post("/echo", b"b"))
    (exchange,) = server.held(1)
    server.call(lambda: (exchange.answer(200, b"one"), exchange.answer(200, b"two"), exchange.fail(NotFound("three"))))
    assert [client.reply().body, client.reply().body] == [b"one", b"b"]
    assert exchange.is_gone


def test_an_exchange_knows_its_connection_and_time(start: Start) -> None:
    server = start()
    one, other = server.connect(), server.connect()
    one.send(post("/hold", b"a") * 2)
    server.held(2)
    other.send(post("/hold", b"a"))
    first, second, third = server.held(3)
    assert first.connection == second.connection != third.connection
    assert 0 <= time.monotonic_ns() - third.received_ns < WAIT_S * 1e9


def test_answers_leave_without_delay(start: Start) -> None:
    server = start()
    client = server.connect()
    client.send(post("/hold", b"a"))
    server.held(1)

    def has_no_delay() -> bool:
        (connection,) = server.server._connections
        taken = connection._transport.get_extra_info("socket")
        return bool(taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    assert server.call(has_no_delay)


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


def test_several_listeners(start: Start) -> None:
    server = start()
    port = server.wait_for(server.server.listen("127.0.0.1", 0))
    assert port != server.port
    other = Client(port, None)
    other.send(post("/echo", b"a"))
    assert other.reply().body == b"a"
    other.close()


def test_http_client(start: Start) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", start().port, timeout=WAIT_S)
    for body in (b"plain", iter([b"in ", b"chunks"])):
        connection.request("POST", "/echo", body, {"Content-Type": "text/x"})
        response = connection.getresponse()
        assert response.status == 200
        assert response.read() in (b"plain", b"in chunks")
    connection.close()


def test_urllib(start: Start) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{start().port}/echo", b"data", timeout=WAIT_S) as response:
        assert response.read() == b"data"


@pytest.mark.skipif(shutil.which("curl") is None and "CI" not in os.environ, reason="curl is not installed")
@pytest.mark.parametrize("option", ["--http1.1", "--http1.0", "--http2"])
def test_curl(start: Start, option: str) -> None:
    url = f"http://127.0.0.1:{start().port}/echo"
    body = b"x" * 2_000_000  # large enough for curl to send Expect: 100-continue
    done = subprocess.run(
        ["curl", "-sS", option, "--data-binary", "@-", url, "--next", "-sS", option, "--data-binary", "@-", url],
        input=body,
        capture_output=True,
        timeout=WAIT_S,
        check=True,
    )
    assert done.stdout[: len(body)] == body


def _stalled(count: Callable[[], int]) -> int:
    """The count once it has not changed for a while."""
    last, since = count(), time.monotonic()
    while time.monotonic() - since < 0.3:
        time.sleep(0.01)
        if count() != last:
            last, since = count(), time.monotonic()
    return last

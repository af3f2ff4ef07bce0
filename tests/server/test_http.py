"""What HTTP requests get for answers, over real sockets and on both event loops."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from nbserve.errors import NotFound
from tests.server.rawhttp import WAIT_S, Client, Start, chunked, get, post

pytestmark = pytest.mark.process


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


def test_several_listeners(start: Start) -> None:
    server = start()
    port = server.wait_for(server.server.listen("127.0.0.1", 0))
    assert port != server.port
    other = Client(port, None)
    other.send(post("/echo", b"a"))
    assert other.reply().body == b"a"
    other.close()

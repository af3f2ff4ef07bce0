"""What HTTP requests are refused, and how; `Expect: 100-continue`."""

from __future__ import annotations

import json
import logging

import pytest

from tests.server.rawhttp import Start, get, post

pytestmark = pytest.mark.process


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

"""HTTP clients that leave, and well-known ones that stay."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import urllib.request

import pytest

from tests.server.rawhttp import WAIT_S, Start, post, until

pytestmark = pytest.mark.process


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


def test_the_routes_hear_which_connection_was_closed(start: Start) -> None:
    server = start()
    stayer, leaver = server.connect(), server.connect()
    for client in (stayer, leaver):
        client.send(post("/hold", b"a"))
    held = server.held(2)
    leaver.close()
    until(lambda: bool(server.routes.gone))
    assert server.routes.gone == [next(exchange.connection for exchange in held if exchange.is_gone)]


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

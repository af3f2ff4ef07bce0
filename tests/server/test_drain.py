"""No request is lost when a server stops: clients that ask as fast as they can, on kept and on new connections."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.server.rawhttp import WAIT_S, Running, Start, get, post, until

pytestmark = pytest.mark.process

ROUNDS = 2


class Asker(threading.Thread):
    """Sends numbered requests until the server has gone, and notes how each of them ended."""

    numbers = itertools.count()

    def __init__(self, port: int, keeps_connection: bool) -> None:
        super().__init__()
        self.ends: dict[bytes, str] = {}
        self.refusals = 0
        self._port = port
        self._keeps = keeps_connection
        self.start()

    def run(self) -> None:
        while self._connect():
            pass

    def _connect(self) -> bool:
        try:
            connection = socket.create_connection(("127.0.0.1", self._port), timeout=WAIT_S)
        except ConnectionRefusedError:
            return False
        with connection, connection.makefile("rb") as file:
            for body in self._bodies():
                self.ends[body] = end = _ask(connection, file, body)
                if end != "answered":
                    break
        return True

    def _bodies(self) -> Iterator[bytes]:
        for number in self.numbers:
            yield b"%d" % number
            if not self._keeps:
                return


def _ask(connection: socket.socket, file: object, body: bytes) -> str:
    try:
        connection.sendall(post("/echo", body))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = file.readline()  # type: ignore[attr-defined]
            if not line:
                return "torn" if head else "closed"
            head += line
        is_whole = file.read(len(body)) == body  # type: ignore[attr-defined]
        if not is_whole:
            return "torn"
        return "last" if b"Connection: close" in head else "answered"
    except ConnectionError as error:
        return type(error).__name__


@pytest.mark.parametrize("keeps_connection", [True, False], ids=["kept", "new"])
def test_every_request_is_answered_or_was_never_read(start: Start, keeps_connection: bool) -> None:
    ends: Counter[str] = Counter()
    for _ in range(ROUNDS):
        server = start()
        askers = _drained_under_load(server, keeps_connection)
        seen = {body for _, _, body in server.routes.seen}
        for asker in askers:
            ends.update(asker.ends.values())
            answered = {body for body, end in asker.ends.items() if end in ("answered", "last")}
            assert seen & asker.ends.keys() == answered
    assert set(ends) <= {"answered", "last", "closed"}
    assert ends["last"] >= ROUNDS


def _drained_under_load(server: Running, keeps_connection: bool) -> list[Asker]:
    askers = [Asker(server.port, keeps_connection) for _ in range(8)]
    until(lambda: len(server.routes.seen) > 400)
    drained = asyncio.run_coroutine_threadsafe(server.server.drain(WAIT_S), server.loop)
    assert drained.result(WAIT_S)
    for asker in askers:
        asker.join(WAIT_S)
    return askers


def test_pipelined_requests_that_were_sent_are_all_answered(start: Start) -> None:
    server = start()
    client = server.connect()
    client.send(post("/hold", b"") * 3)
    held = server.held(3)
    drained = asyncio.run_coroutine_threadsafe(server.server.drain(WAIT_S), server.loop)
    until(lambda: server.server.is_draining)
    client.send(post("/echo", b"late"))
    until(lambda: len(server.routes.seen) == 4)
    for exchange in held:
        server.call(lambda exchange=exchange: exchange.answer(200, b"x"))
    replies = [client.reply() for _ in range(4)]
    assert [reply.headers.get("connection") for reply in replies] == [None, None, None, "close"]
    assert client.is_closed()
    assert drained.result(WAIT_S)


def test_a_request_that_crosses_the_end_of_an_idle_connection_is_not_answered_with_a_reset(start: Start) -> None:
    server = start()
    client = server.connect()
    client.send(get("/echo"))
    client.reply()
    drained = asyncio.run_coroutine_threadsafe(server.server.drain(WAIT_S), server.loop)
    until(lambda: server.call(lambda: all(c._closes for c in server.server._connections)))
    client.send(post("/echo", b"too late"))
    assert client.is_closed()
    assert drained.result(WAIT_S)
    assert b"too late" not in {body for _, _, body in server.routes.seen}


def test_who_connected_before_the_end_is_served_and_later_ones_are_refused(start: Start) -> None:
    server = start()
    other = server.connect()
    waiting = server.connect()
    drained = asyncio.run_coroutine_threadsafe(server.server.drain(WAIT_S), server.loop)
    until(lambda: server.server.is_draining)
    waiting.send(post("/echo", b"in time"))
    assert waiting.reply().headers["connection"] == "close"
    assert other.is_closed()
    with pytest.raises(ConnectionRefusedError):
        server.connect()
    assert drained.result(WAIT_S)


def test_who_waits_to_be_accepted_is_answered_too(start: Start) -> None:
    server = start()
    has_begun, goes_on = threading.Event(), threading.Event()

    async def drain() -> bool:
        has_begun.set()
        goes_on.wait(WAIT_S)
        return await server.server.drain(WAIT_S)

    drained = asyncio.run_coroutine_threadsafe(drain(), server.loop)
    has_begun.wait(WAIT_S)
    clients = [server.connect() for _ in range(5)]
    for client in clients:
        client.send(post("/echo", b"waited"))
    goes_on.set()
    assert [client.reply().headers["connection"] for client in clients] == ["close"] * 5
    assert drained.result(WAIT_S)

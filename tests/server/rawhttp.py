"""An HTTP server in a thread, raw client connections, and the bytes of requests, for the tests of the HTTP server."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

from nbserve.config import ServerConfig
from nbserve.errors import HttpError, NotFound, Overloaded
from nbserve.server.http.server import Exchange, HttpServer

WAIT_S = 10.0
T = TypeVar("T")


class Routes:
    """Answers by path: /hold is answered by the test, the others at once."""

    def __init__(self) -> None:
        self.held: list[Exchange] = []
        self.seen: list[tuple[bytes, bytes, bytes]] = []
        self.gone: list[int] = []

    def check(self, exchange: Exchange) -> None:
        if exchange.path == b"/missing":
            raise NotFound("there is nothing")
        if exchange.path == b"/post" and exchange.method != b"POST":
            raise HttpError(405, "only POST", b"Allow: POST\r\n")

    def left(self, connection: int) -> None:
        self.gone.append(connection)

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
        self.routes = Routes()
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

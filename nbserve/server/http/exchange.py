"""One request and the way to answer it. Server process."""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING

from nbserve.errors import NbserveError
from nbserve.server.http.answer import JSON, error_body, error_lines
from nbserve.server.http.head import Head

if TYPE_CHECKING:
    from nbserve.server.http.connection import Connection

Answer = tuple[int, "bytes | memoryview", bytes, bytes]


class Exchange:
    """A request, complete when the routes get it to dispatch. It is answered once; later answers do nothing, and so
    do answers to a client that left.

    `connection` identifies the client's connection, `received_ns` is when the request was complete (CLOCK_MONOTONIC).
    Answers in parts would go in here as `start(status, content_type, headers)`, `write(part)` and `finish()`: the
    connection already keeps back what is not the turn of its oldest exchange.
    """

    __slots__ = ("body", "connection", "head", "held_answer", "link", "received_ns")

    def __init__(self, head: Head, body: bytes, link: Connection) -> None:
        self.head = head
        self.body = body
        self.received_ns = monotonic_ns()
        self.connection = link.number
        self.link: Connection | None = link
        self.held_answer: Answer | None = None

    @property
    def method(self) -> bytes:
        return self.head.method

    @property
    def target(self) -> bytes:
        return self.head.target

    @property
    def path(self) -> bytes:
        return self.head.path

    @property
    def query(self) -> bytes:
        return self.head.query

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return self.head.headers

    @property
    def content_type(self) -> bytes:
        return self.head.content_type

    @property
    def is_gone(self) -> bool:
        """Whether an answer would reach nobody: the client left, or has its answer."""
        return self.link is None

    def answer(self, status: int, body: bytes | memoryview, content_type: bytes = JSON, headers: bytes = b"") -> None:
        """Send the answer, or keep it until those before it are sent. `headers` are lines, each with its CRLF.

        `body` must not change afterwards: a view into a buffer that is used again would be sent as it is then.
        """
        link = self.link
        if link is not None:
            self.link = None
            link.finish(self, status, body, content_type, headers)

    def fail(self, error: NbserveError, headers: bytes = b"") -> None:
        """Answer with an error as JSON."""
        self.answer(error.status, error_body(error), JSON, error_lines(error) + headers)

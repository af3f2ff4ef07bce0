"""Jupyter's server: one HTTP exchange with a model server, which never makes Jupyter wait.

Tornado's own client cannot be called off halfway, nor be held back by somebody who reads slowly.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tornado.httputil import HTTPHeaders, HTTPInputError, parse_response_start_line

from nbserve.errors import ServerGone

CONNECT_LIMIT_S = 10.0
PIECE_BYTES = 64 * 1024
HEAD_LIMIT_BYTES = 128 * 1024
GONE = "the model server does not answer any more: it has ended, or is about to"


@dataclass(frozen=True)
class Question:
    """What is asked of the API at `url`; `target` is path and query as they go over the wire."""

    url: str
    method: str
    target: str
    headers: HTTPHeaders = field(default_factory=HTTPHeaders, repr=False)
    body: bytes = field(default=b"", repr=False)

    @property
    def head(self) -> bytes:
        own = [("Host", urlsplit(self.url).netloc), ("Connection", "close"), ("Content-Length", str(len(self.body)))]
        lines = [f"{self.method} {self.target} HTTP/1.1", *(f"{k}: {v}" for k, v in [*own, *self.headers.get_all()])]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


class Answer:
    """What is answered: its head, and its body piece by piece as it comes."""

    def __init__(self, reader: asyncio.StreamReader, head: str, is_bodiless: bool) -> None:
        first, _, rest = head.partition("\r\n")
        line = parse_response_start_line(first)
        self.status = line.code
        self.reason = line.reason
        self.headers = HTTPHeaders.parse(rest)
        self._is_bodiless = is_bodiless or self.status in (204, 304)
        self._reader = reader

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body, read only as fast as it is taken; raises ServerGone when it breaks off."""
        with _gone_when_broken():
            async for piece in self._body():
                yield piece

    async def lines(self) -> AsyncIterator[bytes]:
        rest = b""
        async for piece in self.pieces():
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield line
        if rest:
            yield rest

    async def read(self) -> bytes:
        return b"".join([piece async for piece in self.pieces()])

    def _body(self) -> AsyncIterator[bytes]:
        if self._is_bodiless:
            return self._exactly(0)
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return self._chunked()
        if (length := self.headers.get("Content-Length")) is not None:
            return self._exactly(int(length))
        return self._until_closed()

    async def _exactly(self, left: int) -> AsyncIterator[bytes]:
        while left:
            if not (piece := await self._reader.read(min(left, PIECE_BYTES))):
                raise EOFError
            left -= len(piece)
            yield piece

    async def _chunked(self) -> AsyncIterator[bytes]:
        while size := int((await self._reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            async for piece in self._exactly(size):
                yield piece
            await self._reader.readexactly(2)

    async def _until_closed(self) -> AsyncIterator[bytes]:
        while piece := await self._reader.read(PIECE_BYTES):
            yield piece


@asynccontextmanager
async def ask(question: Question) -> AsyncIterator[Answer]:
    """Ask, and give the answer once its head is there. Leaving the block hangs up; raises ServerGone."""
    with _gone_when_broken():
        reader, writer = await _connect(question.url)
    try:
        with _gone_when_broken():
            writer.write(question.head)
            # Not drained: an answer may come, and be the last word, before the body is sent.
            writer.write(question.body)
            head = await reader.readuntil(b"\r\n\r\n")
            answer = Answer(reader, head.decode("latin-1"), question.method == "HEAD")
        yield answer
    finally:
        writer.transport.abort()


async def _connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = urlsplit(url)
    opening = asyncio.open_connection(address.hostname, address.port, limit=HEAD_LIMIT_BYTES)
    return await asyncio.wait_for(opening, CONNECT_LIMIT_S)


@contextmanager
def _gone_when_broken() -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, ValueError, asyncio.TimeoutError, asyncio.LimitOverrunError, HTTPInputError):
        raise ServerGone(GONE) from None

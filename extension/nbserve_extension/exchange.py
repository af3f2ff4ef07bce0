"""Jupyter's server: one HTTP exchange with a model server, which never makes Jupyter wait.

By httpx, since Tornado's own client cannot be called off halfway, nor be held back by somebody who reads slowly.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.client import responses
from urllib.parse import urlsplit

import httpx
from tornado.httputil import HTTPHeaders

from nbserve.errors import ServerGone

CONNECT_LIMIT_S = 10.0
GONE = "the model server does not answer any more: it has ended, or is about to"


@dataclass(frozen=True)
class Question:
    """What is asked of the API at `url`; `target` is path and query as they go over the wire."""

    url: str
    method: str
    target: str
    headers: HTTPHeaders = field(default_factory=HTTPHeaders, repr=False)
    body: bytes = field(default=b"", repr=False)

    def request(self) -> httpx.Request:
        own = [("Host", urlsplit(self.url).netloc), ("Connection", "close"), ("Content-Length", str(len(self.body)))]
        limits = {"connect": CONNECT_LIMIT_S, "read": None, "write": None, "pool": None}
        return httpx.Request(
            self.method,
            self.url,
            headers=[
                (name.encode("latin-1"), value.encode("latin-1")) for name, value in [*own, *self.headers.get_all()]
            ],
            stream=httpx.ByteStream(self.body),
            # The target as it is: httpx would write it in its own way.
            extensions={"target": self.target.encode("latin-1"), "timeout": limits},
        )


class Answer:
    """What is answered: its head, and its body piece by piece as it comes."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.reason = response.extensions.get("reason_phrase", b"").decode("latin-1") or responses.get(self.status, "")
        self.headers = HTTPHeaders()
        for name, value in response.headers.raw:
            self.headers.add(name.decode("latin-1"), value.decode("latin-1"))
        self._response = response

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body, read only as fast as it is taken; raises ServerGone when it breaks off."""
        with _gone_when_broken():
            async for piece in self._response.aiter_raw():
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


@asynccontextmanager
async def ask(question: Question) -> AsyncIterator[Answer]:
    """Ask, and give the answer once its head is there. Leaving the block hangs up; raises ServerGone."""
    # The machine's own servers, on loopback: no proxy, no certificates, no cookies, no redirections.
    async with httpx.AsyncHTTPTransport(verify=False, trust_env=False) as transport:
        with _gone_when_broken():
            response = await transport.handle_async_request(question.request())
        try:
            yield Answer(response)
        finally:
            await response.aclose()


@contextmanager
def _gone_when_broken() -> Iterator[None]:
    try:
        yield
    except (httpx.TransportError, httpx.InvalidURL):
        raise ServerGone(GONE) from None

"""Endpoints that a test answers for, and a connection that keeps the answer, for the tests of the inference API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from nbserve.environment import PlatformRoutes
from nbserve.errors import NbserveError, NotFound, Overloaded
from nbserve.server.http.exchange import Exchange
from nbserve.server.http.head import HeadParser
from nbserve.server.inference_api import InferenceApi
from nbserve.server.ticket import Ticket


class FakeEndpoint:
    """Keeps its tickets until the test resolves them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.version: str | None = "v1"
        self.is_ready = True
        self.is_given_up = False
        self.gone: list[int] = []
        self.tickets: list[Ticket] = []
        self.capacity = 100

    def submit(self, ticket: Ticket) -> None:
        if ticket.version not in (None, self.version):
            raise NotFound("no such version")
        if len(self.tickets) >= self.capacity:
            raise Overloaded("full", retry_after_s=3)
        self.tickets.append(ticket)

    def left(self, connection: int) -> None:
        self.gone.append(connection)

    def resolve_all(self, answer: Callable[[Any], Any], status: int = 200, head: bytes = b"") -> None:
        for ticket in self.tickets:
            ticket.resolve(status, head, memoryview(orjson.dumps(answer(orjson.loads(ticket.body)))))


class FakeEndpoints:
    def __init__(self, *endpoints: FakeEndpoint) -> None:
        self._endpoints = {endpoint.name: endpoint for endpoint in endpoints}
        self.takes_requests = True
        self.are_awaited = False

    def get(self, name: str) -> FakeEndpoint:
        if name not in self._endpoints:
            raise NotFound(f"there is no endpoint {name!r}")
        return self._endpoints[name]

    def names(self) -> list[str]:
        return list(self._endpoints)

    def is_ready(self) -> bool:
        return (
            self.takes_requests
            and not self.are_awaited
            and all(endpoint.is_ready for endpoint in self._endpoints.values())
        )


class FakeLink:
    """The connection of an exchange: keeps its answer."""

    number = 7

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.content_type = b""
        self.lines = b""

    def finish(self, exchange: Exchange, status: int, body: bytes, content_type: bytes, lines: bytes) -> None:
        self.status, self.body, self.content_type, self.lines = status, bytes(body), content_type, lines

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


class Caller:
    """Sends requests to an InferenceApi as a connection does."""

    def __init__(self, *endpoints: FakeEndpoint, platform: PlatformRoutes | None = None) -> None:
        self.endpoints = FakeEndpoints(*endpoints)
        self._api = InferenceApi(self.endpoints, platform)
        self._heads = HeadParser(10_000, 1_000_000)

    def __call__(self, method: str, path: str, body: bytes = b"", *lines: str) -> FakeLink:
        start = (f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *lines, "", "")
        link = FakeLink()
        exchange = Exchange(self._heads.parse("\r\n".join(start).encode("latin-1")), body, link)  # type: ignore[arg-type]
        try:
            self._api.check(exchange)
            self._api.dispatch(exchange)
        except NbserveError as error:
            exchange.fail(error)
        return link

    def infer(self, request: Any, path: str = "/v2/models/digits/infer") -> FakeLink:
        return self("POST", path, orjson.dumps(request))

"""The routes of nbserve's inference API behind Ray's proxies: the very same code answers. Runs in Ray's replica."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, cast
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from nbserve.errors import HandlerFailed, NbserveError, NotFound, Overloaded, ResponseTimeout
from nbserve.server.http.answer import JSON, error_body, error_lines
from nbserve.server.http.connection import Connection
from nbserve.server.http.exchange import Exchange
from nbserve.server.http.head import Head
from nbserve.server.inference_api import InferenceApi
from nbserve.server.own_request import OwnRequest, Reply, make_meta
from nbserve.server.ticket import Ticket
from nbserve.wire import Result

logger = logging.getLogger("ray.serve")
Run = Callable[[Ticket], Awaitable[Result]]


class Answer(NamedTuple):
    status: int
    body: bytes | memoryview
    content_type: bytes
    lines: bytes


class Link:
    """Stands in the place of a client's connection: where an exchange leaves its answer."""

    number = 0

    def __init__(self) -> None:
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def finish(self, exchange: Exchange, *answer: Any) -> None:
        if not self.answer.done():
            self.answer.set_result(Answer(*answer))


class Queue:
    """The endpoint that a replica has, as the routes see it; `run` answers a row, in a batch with others."""

    is_ready = True
    is_given_up = False

    def __init__(self, name: str, version: str, run: Run, on_answer: Callable[[int], None]) -> None:
        self.name = name
        self.version: str | None = version
        self.size = 0
        self.timeout_s = 0.0
        self._run = run
        self._on_answer = on_answer
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, ticket: Ticket) -> None:
        """Have a row answered; raises Overloaded where one request brought more rows than may wait."""
        if ticket.version is not None and ticket.version != self.version:
            raise NotFound(f"{self.name} has no version {ticket.version}; it serves {self.version}")
        if len(self._tasks) >= self.size:
            self._on_answer(Overloaded.status)
            raise Overloaded(f"{self.size} requests already wait")
        task = asyncio.get_running_loop().create_task(self._answer(ticket))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def ask(self, body: bytes, content_type: str) -> Reply:
        """Answer a request that did not come over HTTP."""
        ticket = OwnRequest(make_meta(content_type), body)
        ticket.received_ns = time.monotonic_ns()
        self.submit(ticket)
        return await ticket.reply

    def left(self, connection: int) -> None:
        """Ray does not tell of connections."""

    async def _answer(self, ticket: Ticket) -> None:
        ticket.queued_ns = time.monotonic_ns()
        try:
            result = await asyncio.wait_for(self._run(ticket), self.timeout_s)
        except (asyncio.TimeoutError, NbserveError) as error:
            if not isinstance(error, NbserveError):
                error = ResponseTimeout(f"the handler gave no answer within {self.timeout_s:g} s")
            self._on_answer(error.status)
            ticket.fail(error)
        except Exception:
            logger.exception("request %x failed outside its handler", ticket.request_id)
            self._on_answer(HandlerFailed.status)
            ticket.fail(_internal_error())
        else:
            self._on_answer(result.status)
            ticket.answer(*result)


class Only:
    """The endpoints of a server that has one."""

    are_awaited = False

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def get(self, name: str) -> Queue:
        if name != self._queue.name:
            raise NotFound(f"no endpoint is named {name!r}; there is: {self._queue.name}")
        return self._queue

    def names(self) -> list[str]:
        return [self._queue.name]

    def is_ready(self) -> bool:
        return True


class Front:
    """From Ray's request to nbserve's exchange, and the answer back."""

    def __init__(self, queue: Queue) -> None:
        self._api = InferenceApi(Only(queue))

    async def answer(self, request: Request) -> Response:
        body = await request.body()
        link = Link()
        try:
            exchange = Exchange(head_of(request.scope), body, cast(Connection, link))
        except NbserveError as error:
            return _response(Answer(error.status, *_error_parts(error)))
        self._dispatch(exchange)
        try:
            return _response(await link.answer)
        finally:
            # Where Ray cancels this, because the client left: nobody waits for its rows any more.
            exchange.link = None

    def _dispatch(self, exchange: Exchange) -> None:
        try:
            self._api.check(exchange)
            self._api.dispatch(exchange)
        except NbserveError as error:
            exchange.fail(error)
        except Exception:
            logger.exception("dispatching %r failed", exchange.target)
            exchange.fail(_internal_error())


def head_of(scope: Mapping[str, Any]) -> Head:
    """The head of an ASGI request, its path without the application's prefix; raises HttpError."""
    path = scope.get("raw_path") or quote(scope["path"]).encode()
    prefix = quote(scope.get("root_path", "")).encode().rstrip(b"/")
    if prefix and path.startswith(prefix + b"/"):
        path = path[len(prefix) :]
    query = scope.get("query_string", b"")
    target = path + b"?" + query if query else path
    headers = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
    return Head(scope["method"].encode(), target, headers, "1.1", keep_alive=True)


def _response(answer: Answer) -> Response:
    response = Response(bytes(answer.body), answer.status)
    if answer.content_type:
        response.raw_headers.append((b"content-type", answer.content_type))
    for line in answer.lines.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        # Ray's proxy puts the request's id into each answer by itself.
        if colon and name.lower() != b"x-request-id":
            response.raw_headers.append((name.lower(), value.strip()))
    return response


def _error_parts(error: NbserveError) -> tuple[bytes, bytes, bytes]:
    return error_body(error), JSON, error_lines(error)


def _internal_error() -> NbserveError:
    return NbserveError("the server failed; the replica's log has the traceback")

"""The routes of the inference API: predictions, health, Open Inference Protocol. Server process."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

import orjson

from nbserve import __version__
from nbserve.errors import HandlerFailed, HttpError, NbserveError, NotFound
from nbserve.server import open_inference
from nbserve.server.http.answer import JSON
from nbserve.server.http.exchange import Exchange
from nbserve.server.http.head import Head
from nbserve.server.own_request import DEBUG_HEADER
from nbserve.server.ticket import Ticket, request_ids

# Of no use to a handler: they describe the connection or the framing of the body.
_NOT_FOR_HANDLERS = frozenset(
    (
        b"content-type",
        b"content-length",
        b"connection",
        b"transfer-encoding",
        b"expect",
        b"keep-alive",
        b"te",
        b"upgrade",
        # Only the management API sets it: nobody outside may run into the stop that a debugger waits at.
        DEBUG_HEADER,
    )
)
_NOT_FROM_HANDLERS = frozenset((b"content-length", b"connection", b"transfer-encoding", b"content-type", b"date"))
_HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t -~\x80-\xff]*)")
_CONTENT_TYPE = re.compile(rb"[\t -~\x80-\xff]+")


class Endpoint(Protocol):
    """What the inference API needs of an endpoint."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str | None: ...
    @property
    def is_ready(self) -> bool: ...
    def submit(self, ticket: Ticket) -> None: ...
    def left(self, connection: int) -> None: ...


class Endpoints(Protocol):
    """What the inference API needs of the server's endpoints."""

    def get(self, name: str) -> Endpoint: ...
    def names(self) -> list[str]: ...
    def is_ready(self) -> bool: ...


class Call(NamedTuple):
    """What a head asks for; kept with the head, so that it is found out once for all requests that repeat it."""

    run: Callable[[Exchange, Call], None]
    endpoint: str
    version: str | None
    meta: bytes
    echo: bytes


class PredictionTicket(Ticket):
    """A row that answers the exchange it came with."""

    __slots__ = ("_echo", "_exchange")

    def __init__(self, request_id: int, exchange: Exchange, call: Call) -> None:
        super().__init__(request_id, call.meta, exchange.body, exchange.received_ns, exchange.connection)
        self.version = call.version
        self._exchange = exchange
        self._echo = call.echo

    def resolve(self, status: int, head: bytes, body: bytes | memoryview) -> None:
        if not head:
            self._exchange.answer(status, body, JSON, self._echo)
            return
        try:
            content_type, lines = answer_head(head)
        except HandlerFailed as error:
            self._exchange.fail(error, self._echo)
        else:
            self._exchange.answer(status, body, content_type, lines + self._echo)

    def is_gone(self) -> bool:
        return self._exchange.link is None


class InferenceApi:
    """Finds the endpoint a request is for and queues it there; answers health and metadata itself."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        model = rb"/v2/models/(?P<endpoint>[^/]+)(?:/versions/(?P<version>[^/]+))?"
        self._routes: list[tuple[re.Pattern[bytes], bytes, Callable[[Exchange, Call], None]]] = [
            (re.compile(rb"/predictions/(?P<endpoint>[^/]+)(?:/(?P<version>[^/]+))?"), b"POST", self._predict),
            (re.compile(rb"/ping"), b"GET", self._ping),
            (re.compile(rb"/v2/?"), b"GET", self._server),
            (re.compile(rb"/v2/health/live"), b"GET", self._live),
            (re.compile(rb"/v2/health/ready"), b"GET", self._ready),
            (re.compile(model), b"GET", self._model),
            (re.compile(model + rb"/ready"), b"GET", self._model_ready),
            (re.compile(model + rb"/infer"), b"POST", self._infer),
        ]

    def check(self, exchange: Exchange) -> None:
        if exchange.head.memo is None:
            exchange.head.memo = self._call(exchange.head)

    def dispatch(self, exchange: Exchange) -> None:
        call: Call = exchange.head.memo
        try:
            call.run(exchange, call)
        except NbserveError as error:
            exchange.fail(error, call.echo)

    def left(self, connection: int) -> None:
        for name in self._endpoints.names():
            self._endpoints.get(name).left(connection)

    def _call(self, head: Head) -> Call:
        for pattern, method, run in self._routes:
            if match := pattern.fullmatch(head.path):
                names = {key: _decoded(value) for key, value in match.groupdict().items() if value is not None}
                if names:
                    self._endpoints.get(names["endpoint"])
                return Call(
                    _checked_method(head.method, method, run),
                    names.get("endpoint", ""),
                    names.get("version"),
                    meta_of(head),
                    _echo_of(head),
                )
        raise NotFound(f"there is nothing at {head.path.decode('latin-1')}; predictions are at /predictions/ENDPOINT")

    def _predict(self, exchange: Exchange, call: Call) -> None:
        endpoint = self._endpoints.get(call.endpoint)
        endpoint.submit(PredictionTicket(next(request_ids), exchange, call))

    def _infer(self, exchange: Exchange, call: Call) -> None:
        endpoint = self._version_of(call)
        request = open_inference.parse(exchange.body, exchange.headers)
        inference = open_inference.Inference(exchange, request, endpoint.name, endpoint.version or "", call.echo)
        for ticket in inference.tickets(request_ids, call.meta):
            ticket.version = call.version
            endpoint.submit(ticket)

    def _ping(self, exchange: Exchange, call: Call) -> None:
        if self._endpoints.is_ready():
            _answer_json(exchange, 200, {"status": "Healthy"}, call)
            return
        missing = [name for name in self._endpoints.names() if not self._endpoints.get(name).is_ready]
        reason = f"no worker is ready: {', '.join(missing)}" if missing else "the server takes no requests now"
        _answer_json(exchange, 503, {"status": "Unhealthy", "reason": reason}, call)

    def _server(self, exchange: Exchange, call: Call) -> None:
        _answer_json(exchange, 200, {"name": "nbserve", "version": __version__, "extensions": []}, call)

    def _live(self, exchange: Exchange, call: Call) -> None:
        _answer_json(exchange, 200, {"live": True}, call)

    def _ready(self, exchange: Exchange, call: Call) -> None:
        is_ready = self._endpoints.is_ready()
        _answer_json(exchange, 200 if is_ready else 503, {"ready": is_ready}, call)

    def _model(self, exchange: Exchange, call: Call) -> None:
        endpoint = self._version_of(call)
        # A handler says nothing about the shapes it takes, so there are no tensors to describe.
        described = {"name": endpoint.name, "versions": [endpoint.version] if endpoint.version else []}
        _answer_json(exchange, 200, {**described, "platform": "nbserve_pytorch", "inputs": [], "outputs": []}, call)

    def _model_ready(self, exchange: Exchange, call: Call) -> None:
        endpoint = self._version_of(call)
        status = 200 if endpoint.is_ready else 503
        _answer_json(exchange, status, {"name": endpoint.name, "ready": endpoint.is_ready}, call)

    def _version_of(self, call: Call) -> Endpoint:
        endpoint = self._endpoints.get(call.endpoint)
        if call.version is not None and call.version != endpoint.version:
            raise NotFound(f"{endpoint.name} has no version {call.version}; it serves {endpoint.version or 'none yet'}")
        return endpoint


def meta_of(head: Head) -> bytes:
    """What the worker gets of a head (wire.py describes it)."""
    lines = (b"%b:%b" % header for header in head.headers if header[0] not in _NOT_FOR_HANDLERS)
    return b"\0".join((head.query, head.content_type, b"\n".join(lines)))


@lru_cache(maxsize=256)
def answer_head(head: bytes) -> tuple[bytes, bytes]:
    """Content type and header lines of a row's head; raises HandlerFailed for what HTTP cannot carry.

    Whatever frames the answer is left to the server.
    """
    content_type, _, rest = head.partition(b"\0")
    headers = [_HEADER_LINE.fullmatch(line) for line in rest.split(b"\n")] if rest else []
    if not _CONTENT_TYPE.fullmatch(content_type) or None in headers:
        raise HandlerFailed("the handler returned a header that HTTP cannot carry")
    lines = (b"%b: %b\r\n" % h.groups() for h in headers if h and h[1].lower() not in _NOT_FROM_HANDLERS)
    return content_type, b"".join(lines)


def _checked_method(
    method: bytes, allowed: bytes, run: Callable[[Exchange, Call], None]
) -> Callable[[Exchange, Call], None]:
    allow = b"Allow: %b, OPTIONS\r\n" % (b"GET, HEAD" if allowed == b"GET" else allowed)
    if method == b"OPTIONS":
        return lambda exchange, call: exchange.answer(204, b"", b"", allow + call.echo)
    if method != allowed and (method, allowed) != (b"HEAD", b"GET"):
        raise HttpError(405, f"this path takes {allowed.decode()}, not {method.decode()}", allow)
    return run


def _decoded(name: bytes) -> str:
    try:
        return unquote_to_bytes(name).decode()
    except UnicodeDecodeError:
        raise NotFound("a name in the path is not UTF-8") from None


def _echo_of(head: Head) -> bytes:
    return b"".join(b"X-Request-Id: %b\r\n" % value for name, value in head.headers if name == b"x-request-id")


def _answer_json(exchange: Exchange, status: int, document: object, call: Call) -> None:
    exchange.answer(status, orjson.dumps(document), JSON, call.echo)

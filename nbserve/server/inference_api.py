"""The routes of the inference API: predictions, health, and what platforms ask in their own ways. Server process."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

import orjson

from nbserve import __version__
from nbserve.environment import PlatformRoutes
from nbserve.errors import BadRequest, HandlerFailed, HttpError, NbserveError, NotFound, Unavailable
from nbserve.server import instances, open_inference
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
    @property
    def is_given_up(self) -> bool: ...
    def submit(self, ticket: Ticket) -> None: ...
    def left(self, connection: int) -> None: ...


class Endpoints(Protocol):
    """What the inference API needs of the server's endpoints."""

    def get(self, name: str) -> Endpoint: ...
    def names(self) -> list[str]: ...
    @property
    def are_awaited(self) -> bool: ...
    def is_ready(self) -> bool: ...


Run = Callable[[Exchange, "Call"], None]
Route = tuple[re.Pattern[bytes], bytes, Run]


class Call(NamedTuple):
    """What a head asks for; kept with the head, so that it is found out once for all requests that repeat it."""

    run: Run
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

    def __init__(self, endpoints: Endpoints, platform: PlatformRoutes | None = None) -> None:
        self._endpoints = endpoints
        model = rb"/v2/models/(?P<endpoint>[^/]+)(?:/versions/(?P<version>[^/]+))?"
        routes = [
            (rb"/predictions/(?P<endpoint>[^/]+)(?:/(?P<version>[^/]+))?", b"POST", self._predict),
            (rb"/ping", b"GET", self._ping),
            (rb"/v2/?", b"GET", self._server),
            (rb"/v2/health/live", b"GET", self._live),
            (rb"/v2/health/ready", b"GET", self._ready),
            (rb"/v2/models/?", b"GET", self._models),
            (rb"/v2/repository/index", b"POST", self._index),
            (model, b"GET", self._model),
            (model + rb"/ready", b"GET", self._model_ready),
            (model + rb"/infer", b"POST", self._infer),
            # Amazon SageMaker
            (rb"/invocations", b"POST", self._predict_the_only),
            # KServe, version 1
            (rb"/v1/models/?", b"GET", self._models),
            (rb"/v1/models/(?P<endpoint>[^/]+):predict", b"POST", self._predict_instances),
            (rb"/v1/models/(?P<endpoint>[^/]+)", b"GET", self._model_ready),
        ]
        self._routes = [*self._platform_routes(platform or PlatformRoutes()), *_compiled(routes)]

    def _platform_routes(self, platform: PlatformRoutes) -> list[Route]:
        """Before our own: whoever chose them asks in the platform's way there."""
        routes = [(platform.health, b"GET", self._ping), (platform.predict, b"POST", self._predict_instances)]
        return _compiled([(re.escape(path.encode()), method, run) for path, method, run in routes if path])

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
                    self._find(names["endpoint"])
                return Call(
                    _checked_method(head.method, method, run),
                    names.get("endpoint", ""),
                    names.get("version"),
                    meta_of(head),
                    _echo_of(head),
                )
        raise NotFound(f"there is nothing at {head.path.decode('latin-1')}; predictions are at /predictions/ENDPOINT")

    def _find(self, name: str) -> Endpoint:
        try:
            return self._endpoints.get(name)
        except NotFound:
            if self._endpoints.are_awaited:
                raise Unavailable("the server is starting") from None
            raise

    def _predict(self, exchange: Exchange, call: Call) -> None:
        endpoint = self._endpoints.get(call.endpoint)
        endpoint.submit(PredictionTicket(next(request_ids), exchange, call))

    def _predict_the_only(self, exchange: Exchange, call: Call) -> None:
        self._the_only(exchange).submit(PredictionTicket(next(request_ids), exchange, call))

    def _predict_instances(self, exchange: Exchange, call: Call) -> None:
        endpoint = self._endpoints.get(call.endpoint) if call.endpoint else self._the_only(exchange)
        request = instances.parse(exchange.body)
        asked = instances.Instances(exchange, request, call.echo)
        if not request.rows:
            exchange.answer(200, asked.answer_of([]), JSON, call.echo)
        for ticket in asked.tickets(request_ids, instances.with_parameters(call.meta, request.parameters)):
            endpoint.submit(ticket)

    def _the_only(self, exchange: Exchange) -> Endpoint:
        """The endpoint that is meant where the path names none."""
        names = self._endpoints.names()
        if self._endpoints.are_awaited:
            raise Unavailable("the server is starting")
        if len(names) != 1:
            known = f"there are several, {', '.join(names)}" if names else "there is none yet"
            path = exchange.path.decode("latin-1")
            raise BadRequest(f"{path} is for a server with one endpoint, and {known}; ask /predictions/ENDPOINT")
        return self._endpoints.get(names[0])

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
        if self._endpoints.are_awaited:
            reason = "the server is starting"
        else:
            reason = f"no worker is ready: {', '.join(missing)}" if missing else "the server takes no requests now"
        _answer_json(exchange, 503, {"status": "Unhealthy", "reason": reason}, call)

    def _server(self, exchange: Exchange, call: Call) -> None:
        _answer_json(exchange, 200, {"name": "nbserve", "version": __version__, "extensions": []}, call)

    def _live(self, exchange: Exchange, call: Call) -> None:
        # One whose workers failed to start too often gets well by nothing but a start anew.
        is_live = not any(self._endpoints.get(name).is_given_up for name in self._endpoints.names())
        _answer_json(exchange, 200 if is_live else 503, {"live": is_live}, call)

    def _ready(self, exchange: Exchange, call: Call) -> None:
        is_ready = self._endpoints.is_ready()
        _answer_json(exchange, 200 if is_ready else 503, {"ready": is_ready}, call)

    def _models(self, exchange: Exchange, call: Call) -> None:
        _answer_json(exchange, 200, {"models": self._endpoints.names()}, call)

    def _index(self, exchange: Exchange, call: Call) -> None:
        _answer_json(exchange, 200, [self._indexed(name) for name in self._endpoints.names()], call)

    def _indexed(self, name: str) -> dict[str, str]:
        endpoint = self._endpoints.get(name)
        state = "READY" if endpoint.is_ready else "UNAVAILABLE"
        return {"name": name, "version": endpoint.version or "", "state": state, "reason": ""}

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


def _compiled(routes: Sequence[tuple[bytes, bytes, Run]]) -> list[Route]:
    return [(re.compile(path), method, run) for path, method, run in routes]


def _checked_method(method: bytes, allowed: bytes, run: Run) -> Run:
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

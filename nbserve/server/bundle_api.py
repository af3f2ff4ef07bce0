"""The routes of the management API to what a bundle holds: the requests it was asked, and itself. Server process."""

from __future__ import annotations

import asyncio
import base64
import re
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import IO, Any, TypedDict

from tornado.iostream import StreamClosedError

from nbserve.bundle.bundle import Golden
from nbserve.bundle.pack import pack
from nbserve.errors import BadRequest, NbserveError
from nbserve.recording import Span
from nbserve.server.api_handler import ApiHandler
from nbserve.server.own_request import ForwardedRequest, make_meta

_PIECE_BYTES = 1024 * 1024


class Prediction(TypedDict):
    """What an endpoint answered, and where the time went (None: no worker answered it)."""

    status: int
    content_type: str
    body_base64: str
    ms: float
    span: Span | None


class RecordedPair(TypedDict):
    """A recorded request and its answer."""

    content_type: str
    body_base64: str
    status: int
    answer_content_type: str
    answer_base64: str


class PredictHandler(ApiHandler):
    """A request like any other, sent by who may manage the endpoint; a good one is recorded in the bundle."""

    _asking: ForwardedRequest | None = None

    async def post(self, name: str) -> None:
        endpoint = self.server.endpoints.get(name)
        began_ns = time.monotonic_ns()
        content_type, body = body_of(self.body_object())
        self._asking = request = ForwardedRequest(make_meta(content_type), body, began_ns)
        try:
            endpoint.submit(request)
        except NbserveError as error:
            request.fail(error)
        try:
            reply = await request.reply
        except asyncio.CancelledError:
            return  # The client hung up: a request that still waits is dropped.
        prediction = Prediction(
            status=reply.status,
            content_type=reply.content_type,
            body_base64=base64.b64encode(reply.body).decode(),
            ms=(time.monotonic_ns() - began_ns) / 1e6,
            span=endpoint.spans.find(request.request_id),
        )
        if reply.status < 400:
            await endpoint.record(Golden(body, content_type, reply.status, reply.body, reply.content_type))
        self.send(prediction)

    def on_connection_close(self) -> None:
        if self._asking is not None:
            self._asking.reply.cancel()


class RecordedHandler(ApiHandler):
    async def get(self, name: str) -> None:
        count = self.count_argument("last", 20)
        bundle = self.server.endpoints.get(name).serving().bundle
        golden = await asyncio.to_thread(bundle.golden)
        self.send([_recorded(pair) for pair in golden[max(0, len(golden) - count) :]])


class BundleHandler(ApiHandler):
    async def get(self, name: str) -> None:
        """The bundle with the settings of now."""
        version = self.server.endpoints.get(name).serving()
        bundle = replace(version.bundle, settings=version.config.tuned())
        await send_packed(self, f"{name}-{bundle.version}", lambda file: pack(bundle, file))


async def send_packed(handler: ApiHandler, name: str, write: Callable[[IO[bytes]], None]) -> None:
    """Answer with a .tar.gz that `write` makes: in a file first, as it may be larger than memory."""
    with tempfile.TemporaryFile() as file:
        await asyncio.to_thread(write, file)
        handler.set_header("Content-Type", "application/gzip")
        handler.set_header("Content-Length", file.tell())
        plain_name = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)
        handler.set_header("Content-Disposition", f'attachment; filename="{plain_name}.tar.gz"')
        file.seek(0)
        # Who hangs up has enough.
        with suppress(StreamClosedError):
            while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
                handler.write(piece)
                await handler.flush()
            await handler.finish()


def body_of(request: Any) -> tuple[str, bytes]:
    """Content type and bytes of a request that came as JSON."""
    if not isinstance(request, dict):
        raise BadRequest(f"a request is {request!r}; it takes an object")
    content_type, text = request.get("content_type", "application/json"), request.get("body")
    if not isinstance(content_type, str) or not content_type.isprintable():
        raise BadRequest(f"content_type is {content_type!r}; it takes a text in one line")
    if isinstance(text, str):
        return content_type, text.encode()
    encoded = request.get("body_base64")
    if not isinstance(encoded, str):
        raise BadRequest("a request takes its body as body_base64, or as body if it is a text")
    try:
        return content_type, base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise BadRequest(f"body_base64 is no base64: {error}") from None


def _recorded(pair: Golden) -> RecordedPair:
    return RecordedPair(
        content_type=pair.content_type,
        body_base64=base64.b64encode(pair.request_body).decode(),
        status=pair.status,
        answer_content_type=pair.answer_content_type,
        answer_base64=base64.b64encode(pair.answer_body).decode(),
    )


def routes(name: str) -> list[tuple[str, type[ApiHandler]]]:
    """The routes below an endpoint; `name` is the pattern of its path."""
    return [
        (name + "/predict", PredictHandler),
        (name + "/recorded", RecordedHandler),
        (name + "/bundle", BundleHandler),
    ]

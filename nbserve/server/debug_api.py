"""The routes of the management API that debuggers use. Server process."""

from __future__ import annotations

import asyncio
import base64
from typing import Any, get_args

from nbserve.errors import BadRequest, Unavailable
from nbserve.server import debugging
from nbserve.server.api_handler import ApiHandler
from nbserve.server.endpoint import Endpoint
from nbserve.server.own_request import DEBUG_HEADER
from nbserve.server.standins import Mode
from nbserve.server.stream import StreamHandler


class HoldsHandler(StreamHandler):
    """A line of JSON at once and at each change, until the client hangs up or the endpoint is gone."""

    async def get(self, name: str) -> None:
        endpoint = self.server.endpoints.get(name)
        await self.follow(self._follow(endpoint))

    async def _follow(self, endpoint: Endpoint) -> None:
        said: list[dict[str, Any]] | None = None
        while self.server.endpoints.is_known(endpoint):
            held = debugging.holds_of(endpoint)
            # The time that is left runs down by itself: that is no news.
            if (news := [{**hold, "goes_on_in_s": None} for hold in held]) != said:
                said = news
                await self.say({"held": held})
                continue  # Something may have changed while that was sent.
            await endpoint.changes.wait()


class DebugHandler(ApiHandler):
    async def post(self, name: str) -> None:
        endpoint = self.server.endpoints.get(name)
        if not self.server.can_debug:
            raise Unavailable(
                "this server runs without --debug, so no debugger can attach; start it as `nbserve serve --debug`"
            )
        wish = self.body_object()
        mode, index = wish.get("mode"), wish.get("worker")
        modes: tuple[Mode, ...] = get_args(Mode)
        if mode not in modes:
            raise BadRequest(f"mode is {mode!r}; it can be {', '.join(modes)}")
        if index is not None and type(index) is not int:
            raise BadRequest(f"worker is {index!r}; it takes a whole number or null")
        self.send(await debugging.debug(endpoint, mode, index))


class RequestHandler(ApiHandler):
    async def post(self, name: str, index: str) -> None:
        endpoint = self.server.endpoints.get(name)
        asking = asyncio.ensure_future(
            debugging.send(
                endpoint,
                int(index),
                self.request.body,
                self.request.headers.get("Content-Type", "application/json"),
                self.request.headers.get(DEBUG_HEADER.decode()),
                is_replay=self.get_query_argument("replay", "") == "1",
            )
        )
        self._asking = asking
        try:
            reply = await asking
        except asyncio.CancelledError:
            return  # The client hung up: a request that still waits is dropped.
        body = base64.b64encode(reply.body).decode()
        self.send({"status": reply.status, "content_type": reply.content_type, "body": body})

    def on_connection_close(self) -> None:
        if (asking := getattr(self, "_asking", None)) is not None:
            asking.cancel()


class StackHandler(ApiHandler):
    async def post(self, name: str, index: str) -> None:
        self.send({"text": await debugging.stack(self.server.endpoints.get(name), int(index))})


def routes(name: str) -> list[tuple[str, type[ApiHandler]]]:
    """The routes below an endpoint; `name` is the pattern of its path."""
    worker = name + r"/workers/(\d+)"
    return [
        (name + "/holds", HoldsHandler),
        (name + "/debug", DebugHandler),
        (worker + "/request", RequestHandler),
        (worker + "/stack", StackHandler),
    ]

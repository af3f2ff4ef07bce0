"""Jupyter's server: how an endpoint does, live: each line of the management API's stream is a WebSocket's message."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import orjson
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from tornado import web
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from nbserve.errors import ServerGone, from_object

from .along import query_along
from .api_handler import Guarded
from .exchange import Answer, ask
from .latest import Latest
from .servers import managed

# Both as RFC 6455 has them.
NORMAL, GOING_AWAY = 1000, 1001


class StreamHandler(Guarded, WebSocketMixin, WebSocketHandler, JupyterHandler):
    """One exchange with the management API, as long as the socket is open: the end of either ends the other."""

    _sending: asyncio.Future[None] | None = None

    @web.authenticated
    async def get(self, name: str) -> None:  # type: ignore[override]
        run_file = await self.servers.having(name, self.server_id)
        target = f"/endpoints/{quote(name, safe='')}/stream{query_along(self.request.query, ['server'])}"
        async with ask(managed(run_file, "GET", target)) as answer:
            if answer.status != 200:
                raise from_object(orjson.loads(await answer.read()))
            self._answer = answer
            # Shakes hands, and comes back when the socket is closed.
            await super().get(name)

    def open(self, name: str) -> Any:
        self._sending = asyncio.ensure_future(self._send(self._answer))
        return super().open(name)

    def on_message(self, message: str | bytes) -> None:
        """There is nothing to say to a stream."""

    def on_close(self) -> None:
        if self._sending is not None:
            self._sending.cancel()

    async def _send(self, answer: Answer) -> None:
        lines = Latest()
        reading = asyncio.ensure_future(_read(answer, lines))
        try:
            while (line := await lines.take()) is not None:
                await self.write_message(line.decode())
            self.close(*await reading)
        except WebSocketClosedError:
            pass  # The browser went first.
        finally:
            reading.cancel()


async def _read(answer: Answer, lines: Latest) -> tuple[int, str]:
    """Take in all lines; gives why there are no more."""
    try:
        async for line in answer.lines():
            lines.put(line)
        return NORMAL, "the endpoint was stopped"
    except ServerGone:
        return GOING_AWAY, "the model server ended"
    finally:
        lines.end()

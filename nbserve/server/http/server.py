"""The HTTP server of the inference API: listeners, limits and time for all its connections. Server process."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import suppress
from typing import Protocol

from nbserve.config import ServerConfig
from nbserve.errors import Unavailable
from nbserve.server.http.answer import AnswerHeads
from nbserve.server.http.connection import Connection
from nbserve.server.http.exchange import Exchange
from nbserve.server.http.head import HeadParser
from nbserve.server.shutter import take_the_last

__all__ = ["Exchange", "HttpServer", "Routes"]

_TICK_S = 1.0
_BACKLOG = 4096
_TURNED_AWAY = 256
# Who got an answer just before a server began to stop has asked again by then, and hears that the connection ends.
_RETURN_S = 1.0
# What crosses the end of an idle connection has arrived by then.
_LINGER_S = 0.25


class Routes(Protocol):
    """What the server asks about each request. Both calls may raise any NbserveError as the answer."""

    def check(self, exchange: Exchange) -> None:
        """Refuse by the head alone: where the body is still to come, none of it has been read."""

    def dispatch(self, exchange: Exchange) -> None:
        """Take a complete request; it is answered now or later, through the exchange."""

    def left(self, connection: int) -> None:
        """The connection of that number was closed."""


class HttpServer:
    """Accepts connections on any number of addresses and looks at each of them once per tick.

    `now` is the time of the last tick: precise enough for time-outs, and free.
    """

    def __init__(self, routes: Routes, config: ServerConfig, loop: asyncio.AbstractEventLoop) -> None:
        self.routes = routes
        self.config = config
        self.loop = loop
        self.max_pipelined = config.max_pipelined
        self.heads = HeadParser(config.max_header_bytes, config.max_body_bytes)
        self.known_heads = self.heads.known
        self.answer_heads = AnswerHeads(time.time())
        self.known_answer_heads = self.answer_heads.known
        self.now = loop.time()
        self.is_draining = False
        self._tick_s = min(_TICK_S, config.header_timeout_s, config.body_timeout_s, config.keep_alive_timeout_s)
        self._numbers = itertools.count(1)
        self._listeners: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._emptied: asyncio.Future[None] | None = None
        self._ticker: asyncio.TimerHandle | None = None

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    async def listen(self, host: str, port: int) -> int:
        """Accept connections on one more address; the port that was bound, which differs from `port` when that is 0."""
        listener = await self.loop.create_server(self._connection, host, port, backlog=_BACKLOG)
        self._listeners.append(listener)
        if self._ticker is None:
            self._tick()
        bound: int = listener.sockets[0].getsockname()[1]
        return bound

    async def stop_accepting(self) -> None:
        """From here on nobody new can connect, and each answer is the last of its connection."""
        self.is_draining = True
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            last = [take_the_last(part.fileno()) for part in listener.sockets]
            if isinstance(listener, asyncio.Server):
                await self._begin_accepted(listener)
            listener.close()
            for taken, plug in last:
                if plug is not None:
                    plug.close()
                for client in taken:
                    # It may have left meanwhile.
                    with suppress(OSError):
                        await self.loop.connect_accepted_socket(self._connection, client)

    async def _begin_accepted(self, listener: asyncio.Server) -> None:
        """Let asyncio begin the connections that it has accepted: it trips over them when their listener is closed."""
        for part in listener.sockets:
            self.loop.remove_reader(part.fileno())
        for _ in range(3):
            await asyncio.sleep(0)

    async def drain(self, timeout_s: float) -> bool:
        """Answer all that was sent, then close every connection; False when some had to be cut after `timeout_s`."""
        ends_at = self.loop.time() + timeout_s
        await self.stop_accepting()
        # Those that were accepted just before get their first event.
        for _ in range(5):
            await asyncio.sleep(0)
        await self._become_empty(min(_RETURN_S, timeout_s))
        for connection in list(self._connections):
            connection.drain()
        await self._become_empty(min(_LINGER_S, timeout_s))
        for connection in list(self._connections):
            connection.end_idle()
        await self._become_empty(ends_at - self.loop.time())
        is_done = not self._connections
        self.close()
        return is_done

    async def _become_empty(self, limit_s: float) -> None:
        if self._connections and limit_s > 0:
            self._emptied = self.loop.create_future()
            await asyncio.wait([self._emptied], timeout=limit_s)

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    def close(self) -> None:
        """Stop at once: whoever still waits for an answer is cut off."""
        self._stop_listening()
        for connection in list(self._connections):
            connection.abort()
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None

    def connected(self, connection: Connection) -> None:
        self._connections.add(connection)
        excess = len(self._connections) - self.config.max_connections
        if excess > _TURNED_AWAY:
            connection.abort()
        elif excess > 0:
            connection.refuse(Unavailable("the server has as many connections as it takes (max_connections)"))

    def disconnected(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self.routes.left(connection.number)
        if self._emptied is not None and not self._connections and not self._emptied.done():
            self._emptied.set_result(None)

    def _connection(self) -> Connection:
        return Connection(self, next(self._numbers))

    def _tick(self) -> None:
        self.now = self.loop.time()
        self.answer_heads.set_date(time.time())
        # A step forward just before a tick carries the time of the tick before: nobody may time out early.
        at = self.now - self._tick_s
        for connection in list(self._connections):
            connection.check_time(at)
        self._ticker = self.loop.call_later(self._tick_s, self._tick)

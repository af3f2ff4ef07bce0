"""The load generator's connections, which stay open from request to request. Runs in its process."""

from __future__ import annotations

import asyncio
from typing import cast

import httptools

from nbserve.load.job import MOST_CONNECTIONS

ANSWER_LIMIT_S = 60.0


class Connection(asyncio.Protocol):
    """One connection that stays open; one request at a time."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[str] | None = None
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self.is_open = True

    async def ask(self, message: bytes) -> str:
        """The status of the answer, or what went wrong."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(message)
        try:
            return await asyncio.wait_for(self._answer, ANSWER_LIMIT_S)
        except asyncio.TimeoutError:
            self.close()
            return f"no answer within {ANSWER_LIMIT_S:g} s"
        except asyncio.CancelledError:
            self.close()
            raise

    def close(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No isinstance: uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._settle(f"no HTTP: {error}")
            self.close()

    def on_message_complete(self) -> None:
        self.is_open = self.is_open and self._parser.should_keep_alive()
        status = str(self._parser.get_status_code())
        self._parser = httptools.HttpResponseParser(self)
        self._settle(status)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        self._settle("connection closed")

    def _settle(self, result: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(result)


class Connections:
    """Open connections by host, kept from run to run."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int], list[Connection]] = {}
        self._free = asyncio.Semaphore(MOST_CONNECTIONS)

    async def ask(self, where: tuple[str, int], message: bytes) -> str:
        async with self._free:
            try:
                connection = await self._take(where)
            except OSError as error:
                return f"no connection: {error.strerror or error}"
            result = await connection.ask(message)
            if connection.is_open:
                self._idle[where].append(connection)
            return result

    async def _take(self, where: tuple[str, int]) -> Connection:
        idle = self._idle.setdefault(where, [])
        while idle:
            if (connection := idle.pop()).is_open:
                return connection
        _, connection = await asyncio.get_running_loop().create_connection(Connection, *where)
        return connection

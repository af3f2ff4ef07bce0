"""The server's end of one worker's socket: sends batches, hands on results in order. Server process."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, cast

from nbserve import wire
from nbserve.server.logbook import logger
from nbserve.server.ticket import Ticket

SOCKET_BUFFER_BYTES = 1024 * 1024
JOIN_BYTES = 64 * 1024


@dataclass
class InFlight:
    """A batch the worker has. `started_ns` is when the worker could begin it: after the one before it;
    `held_since_ns` since when the policy kept it waiting (0: it did not).
    """

    batch_id: int
    tickets: list[Ticket]
    sent_ns: int
    started_ns: int
    held_since_ns: int = 0


class Listener(Protocol):
    """Whoever drives the worker: hears of answers, messages and the end of the channel."""

    def on_results(self, batch: InFlight, results: wire.Results) -> None: ...

    def on_event(self, event: dict[str, Any]) -> None: ...

    def on_channel_closed(self) -> None: ...


class Channel(asyncio.Protocol):
    """Batches go out and come back first in, first out; what is in flight when the channel closes was not answered."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._reader = wire.FrameReader()
        self._transport: asyncio.Transport | None = None
        self.in_flight: deque[InFlight] = deque()

    def send_batch(self, batch: InFlight) -> None:
        rows = [(ticket.request_id, ticket.meta, ticket.body) for ticket in batch.tickets]
        self.in_flight.append(batch)
        self._write(wire.encode_batch(batch.batch_id, rows))

    def send(self, message: dict[str, Any]) -> None:
        self._write([wire.encode_message(wire.CONTROL, message)])

    def take_back(self) -> list[InFlight]:
        """The batches that were sent ahead of the one the worker is at; they are in flight no more."""
        ahead = []
        while len(self.in_flight) > 1:
            ahead.append(self.in_flight.pop())
        return ahead[::-1]

    def shift(self, by_ns: int) -> None:
        """What is in flight counts as begun later."""
        for batch in self.in_flight:
            batch.started_ns += by_ns

    def begin_anew(self, now_ns: int) -> None:
        """What the worker is at counts as begun now."""
        if self.in_flight:
            self.in_flight[0].started_ns = now_ns

    def read_rest(self) -> None:
        """Take what has arrived, before the channel is closed: the worker's end is known already."""
        if self._transport is None or self._transport.is_closing():
            return
        # Not the transport's own: the event loop would be reading it too.
        own = os.dup(self._transport.get_extra_info("socket").fileno())
        with socket.socket(fileno=own) as end, suppress(OSError):
            while data := end.recv(SOCKET_BUFFER_BYTES, socket.MSG_DONTWAIT):
                self.data_received(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _write(self, buffers: Sequence[bytes | memoryview]) -> None:
        # A closed channel is no error here: connection_lost hands the batch back.
        if self._transport is None or self._transport.is_closing():
            return
        if sum(map(len, buffers)) < JOIN_BYTES:
            self._transport.write(b"".join(buffers))
        else:
            self._transport.writelines(buffers)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No isinstance: uvloop's transport of a Unix socket does not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        # An error in here must not end the channel by way of the event loop: batches would hang for ever.
        try:
            for kind, count, payload in self._reader.feed(data):
                self._take(kind, count, payload)
        except wire.WireError as error:
            logger.error("a worker sent what is no frame (%s); its channel is closed", error)
            self.close()

    def _take(self, kind: int, count: int, payload: memoryview) -> None:
        try:
            if kind == wire.RESULTS:
                self._take_results(wire.decode_results(count, payload))
            else:
                self._listener.on_event(wire.decode_message(payload))
        except wire.WireError:
            raise
        except Exception:
            logger.exception("handling a frame of a worker failed")

    def _take_results(self, results: wire.Results) -> None:
        if not self.in_flight or self.in_flight[0].batch_id != results.batch_id:
            raise wire.WireError(f"results of batch {results.batch_id}, which is not the next in flight")
        batch = self.in_flight.popleft()
        if len(batch.tickets) != len(results.rows):
            self.in_flight.appendleft(batch)
            raise wire.WireError(f"{len(results.rows)} results for {len(batch.tickets)} rows")
        if self.in_flight:
            self.in_flight[0].started_ns = time.monotonic_ns()
        self._listener.on_results(batch, results)

    def connection_lost(self, exc: Exception | None) -> None:
        self._listener.on_channel_closed()


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a worker's socket, with room for a large batch."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in pair:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
    return pair

"""One client connection of the inference API: bytes to exchanges, answers to bytes, in order. Server process."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from time import monotonic_ns
from typing import TYPE_CHECKING, cast

from nbserve.errors import HttpError, NbserveError
from nbserve.server.http.answer import BODYLESS, CLOSE_LINE, CONTINUE
from nbserve.server.http.body import ChunkedBody, SizedBody, body_of
from nbserve.server.http.exchange import Exchange
from nbserve.server.http.head import NO_HEAD, Head, head_too_large

if TYPE_CHECKING:
    from nbserve.server.http.server import HttpServer

logger = logging.getLogger("nbserve.server.http")

_JOIN_BELOW = 64 * 1024
_LINGER_S = 3.0


class Connection(asyncio.Protocol):
    """Reads requests, hands them to the routes, writes the answers in the order of the requests.

    `_partial` is the request whose body is still arriving in `_body`; `_waiting` are those whose answer is not on the
    wire yet; `_closes` means that no further request is read and that the last answer ends the connection.
    Time is coarse: `_since` is the server's last tick before the last step forward.
    """

    __slots__ = (
        "_body",
        "_closes",
        "_is_paused",
        "_is_stuck",
        "_lingers",
        "_owes_continue",
        "_partial",
        "_server",
        "_since",
        "_transport",
        "_unread",
        "_unsent",
        "_waiting",
        "number",
    )

    _transport: asyncio.Transport

    def __init__(self, server: HttpServer, number: int) -> None:
        self.number = number
        self._server = server
        self._waiting: deque[Exchange] = deque()
        self._unread = b""
        self._partial: Exchange | None = None
        self._body: SizedBody | ChunkedBody | None = None
        self._owes_continue = False
        self._closes = False
        self._lingers = False
        self._is_paused = False
        self._is_stuck = False
        self._unsent = 0
        self._since = server.now

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.connected(self)

    def connection_lost(self, error: Exception | None) -> None:
        for exchange in self._waiting:
            exchange.link = None
        self._waiting.clear()
        self._closes = True
        self._forget_input()
        self._server.disconnected(self)

    def eof_received(self) -> bool:
        # A client that left and one that only shut down its sending side look alike; nearly all have left.
        return False

    def data_received(self, data: bytes) -> None:
        if self._closes:
            return
        if self._unread:
            data = self._unread + data
            self._unread = b""
        else:
            self._since = self._server.now
        try:
            self._read(data)
        except NbserveError as error:
            self.refuse(error)
        except Exception:
            logger.exception("reading a request failed")
            self.refuse(_internal_error())

    def pause_writing(self) -> None:
        self._is_stuck = True
        self._unsent = self._transport.get_write_buffer_size()
        self._since = self._server.now
        self._pause()

    def resume_writing(self) -> None:
        self._is_stuck = False
        self._resume()

    def refuse(self, error: NbserveError) -> None:
        """Answer with an error after the answers that are still due, and read no further request."""
        head = self._partial.head if self._partial else NO_HEAD
        self._forget_input()
        self._closes = self._lingers = True
        exchange = Exchange(head, b"", self)
        self._waiting.append(exchange)
        exchange.fail(error)

    def drain(self) -> None:
        """Say now that nothing follows if no request is under way, else with its answer."""
        if self._is_reading:
            return  # the rest of this request may come; `_send` sees that the server drains
        if not self._closes and not self._waiting:
            # A request that crosses this is read and dropped: closing would answer it with a reset.
            self._lingers = True
            self._end()
        self._closes = True

    def end_idle(self) -> None:
        """Close if it only waits for the client to close."""
        if self._closes and not self._waiting and not self._transport.get_write_buffer_size():
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def check_time(self, now: float) -> None:
        """Called at each tick: end what takes too long."""
        waited_s, config = now - self._since, self._server.config
        if self._is_stuck:
            if waited_s > config.body_timeout_s:
                self._cut_slow_reader()
        elif self._waiting:
            return
        elif self._closes:
            if waited_s > (config.body_timeout_s if self._transport.get_write_buffer_size() else _LINGER_S):
                self._transport.abort()
        elif self._partial:
            if waited_s > config.body_timeout_s:
                self.refuse(HttpError(408, "the body did not arrive in time"))
        elif self._unread:
            if waited_s > config.header_timeout_s:
                self.refuse(HttpError(408, "the head of the request did not arrive in time"))
        elif waited_s > config.keep_alive_timeout_s:
            self._closes = True
            self._transport.close()

    def finish(
        self, exchange: Exchange, status: int, body: bytes | memoryview, content_type: bytes, lines: bytes
    ) -> None:
        """Send this answer if it is its turn, and then those that waited for it; otherwise keep it."""
        waiting = self._waiting
        if waiting[0] is not exchange:
            exchange.held_answer = status, body, content_type, lines
            return
        waiting.popleft()
        self._send(exchange.head, status, body, content_type, lines)
        while waiting and (held := waiting[0].held_answer) is not None:
            self._send(waiting.popleft().head, *held)
        if self._is_paused:
            self._server.loop.call_soon(self._resume)
        if self._owes_continue:
            self._send_continue()

    def _read(self, data: bytes) -> None:
        at, end, waiting = 0, len(data), self._waiting
        while 0 <= at < end and not self._closes:
            if self._body is not None:
                at = self._read_body(self._body, data, at)
                continue
            if len(waiting) >= self._server.max_pipelined:
                self._pause()
            if self._is_paused:
                self._unread = data[at:]
                return
            at = self._read_head(data, at)

    def _read_head(self, data: bytes, at: int) -> int:
        """Read a head, and the whole request if it is there; where that ended, or -1 for a partial head."""
        body_at = data.find(b"\r\n\r\n", at) + 4
        raw = data[at:body_at]
        head = self._server.known_heads.get(raw)
        if head is None:
            if data.startswith(b"\r\n", at):
                return at + 2
            if body_at == 3:
                return self._keep_partial_head(data, at)
            head = self._server.heads.parse(raw)
        end = body_at + head.body_length
        if body_at <= end <= len(data):
            self._take(Exchange(head, data[body_at:end], self))
            return end
        self._begin_body(Exchange(head, b"", self), has_begun=body_at < len(data))
        return body_at

    def _keep_partial_head(self, data: bytes, at: int) -> int:
        self._unread = data[at:]
        if len(self._unread) > self._server.config.max_header_bytes:
            raise head_too_large()
        return -1

    def _begin_body(self, exchange: Exchange, has_begun: bool) -> None:
        self._partial = exchange
        self._server.routes.check(exchange)
        self._body = body_of(exchange.head, self._server.config.max_body_bytes)
        if exchange.head.expects_continue and not has_begun:
            self._owes_continue = True
            self._send_continue()

    def _read_body(self, body: SizedBody | ChunkedBody, data: bytes, at: int) -> int:
        self._owes_continue = False
        at = body.feed(data, at)
        if at >= 0 and self._partial is not None:
            exchange = self._partial
            self._forget_input()
            exchange.body = body.join()
            exchange.received_ns = monotonic_ns()
            self._take(exchange, is_checked=True)
        return at

    def _take(self, exchange: Exchange, is_checked: bool = False) -> None:
        """A request is complete: from here on it has its turn among the answers."""
        self._waiting.append(exchange)
        if not exchange.head.keep_alive:
            self._closes = True
        try:
            if not is_checked:
                self._server.routes.check(exchange)
            self._server.routes.dispatch(exchange)
        except NbserveError as error:
            exchange.fail(error)
        except Exception:
            logger.exception("dispatching %r failed", exchange.target)
            exchange.fail(_internal_error())

    def _send(self, head: Head, status: int, body: bytes | memoryview, content_type: bytes, lines: bytes) -> None:
        transport, server = self._transport, self._server
        if transport.is_closing():
            return  # the client is gone: writing would warn or raise, in the callback of whoever answers
        is_last = not self._waiting and (self._closes or (server.is_draining and not self._is_reading))
        lines += CLOSE_LINE if is_last else head.connection_line
        key = status, content_type, len(body), lines
        start = server.known_answer_heads.get(key) or server.answer_heads.make(*key)
        if head.method == b"HEAD" or status in BODYLESS:
            transport.write(start)
        elif len(body) < _JOIN_BELOW:
            transport.write(b"".join((start, body)))
        else:
            transport.writelines((start, body))
        self._since = server.now
        if is_last:
            self._closes = True
            self._end()

    @property
    def _is_reading(self) -> bool:
        """Whether a request has arrived in part."""
        return self._partial is not None or bool(self._unread)

    def _send_continue(self) -> None:
        # An interim answer has its turn like any other.
        if not self._waiting and not self._transport.is_closing():
            self._owes_continue = False
            self._transport.write(CONTINUE)

    def _end(self) -> None:
        if not self._lingers:
            self._transport.close()
            return
        # Closing with unread bytes resets the connection, and the reset can overtake the answer: so say that nothing
        # follows, and throw away what still comes until the client closes or `check_time` has seen enough.
        self._transport.write_eof()
        self._resume()

    def _pause(self) -> None:
        if not self._is_paused and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if not self._is_paused or self._is_stuck or self._transport.is_closing():
            return
        self._is_paused = False
        self._transport.resume_reading()
        if self._unread:
            self.data_received(b"")

    def _cut_slow_reader(self) -> None:
        unsent, before = self._transport.get_write_buffer_size(), self._unsent
        self._unsent, self._since = unsent, self._server.now
        if unsent >= before:
            self._transport.abort()

    def _forget_input(self) -> None:
        self._partial = None
        self._body = None
        self._owes_continue = False
        self._unread = b""


def _internal_error() -> NbserveError:
    return NbserveError("the server failed; its log has the traceback")

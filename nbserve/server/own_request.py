"""A request the server sends itself: a recorded one to check a version with, or one for a debugger. Server process."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from nbserve.server.ticket import Ticket, request_ids

DEBUG_HEADER = b"x-nbserve-debug"


class Reply(NamedTuple):
    """The answer to a request of our own."""

    status: int
    content_type: str
    body: bytes


class OwnRequest(Ticket):
    """Waits for its answer in `reply`. One that is `direct` goes to one worker, alone, and is never tried again.

    `is_replay` marks a request that failed before.
    """

    is_counted = False

    __slots__ = ("is_direct", "is_replay", "reply")

    def __init__(
        self, meta: bytes, body: bytes | memoryview, *, is_direct: bool = False, is_replay: bool = False
    ) -> None:
        super().__init__(next(request_ids), meta, body, 0)
        self.is_direct = is_direct
        self.is_replay = is_replay
        if is_direct:
            self.attempts = 1
        self.reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def resolve(self, status: int, head: bytes, body: bytes | memoryview) -> None:
        if not self.reply.done():
            content_type = head.partition(b"\0")[0].decode("latin-1") or "application/json"
            self.reply.set_result(Reply(status, content_type, bytes(body)))

    def is_gone(self) -> bool:
        return self.reply.cancelled()


class ForwardedRequest(OwnRequest):
    """One that somebody asks the management API for: it counts like any client's."""

    is_counted = True

    __slots__ = ()

    def __init__(self, meta: bytes, body: bytes, received_ns: int) -> None:
        super().__init__(meta, body)
        self.received_ns = received_ns


def make_meta(content_type: str, token: str | None = None) -> bytes:
    """The meta of a request without a query; a `token` lets it stop where a debugger waits for it."""
    return with_token(b"\0" + content_type.encode("latin-1", "replace") + b"\0", token)


def with_token(meta: bytes, token: str | None) -> bytes:
    """A request's meta, marked with a debugger's token instead of the one it may have."""
    query, content_type, lines = meta.split(b"\0", 2)
    kept = [line for line in lines.split(b"\n") if line and not line.startswith(DEBUG_HEADER + b":")]
    if token:
        kept.append(DEBUG_HEADER + b":" + token.encode("latin-1", "replace"))
    return b"\0".join((query, content_type, b"\n".join(kept)))

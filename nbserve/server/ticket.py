"""One row that waits for its answer, in the server process."""

from __future__ import annotations

import itertools
from collections.abc import Hashable

import orjson

from nbserve.errors import NbserveError
from nbserve.server.logbook import logger

# Clients' requests and our own are numbered together: each process has one server.
request_ids = itertools.count(1)


class Ticket:
    """What a client asked for, on its way through queue, batch and worker; subclasses know how to answer the client.

    `source` identifies the client's connection for the batching policy, `attempts` counts the workers that died
    with it, `version` is the one it asks for (None: whichever is current). Times are CLOCK_MONOTONIC nanoseconds.
    One that `is_direct` is for one worker alone, one that `is_counted` is a client's.
    """

    is_direct = False
    is_counted = True

    __slots__ = (
        "attempts",
        "body",
        "meta",
        "queued_ns",
        "received_ns",
        "request_id",
        "source",
        "version",
    )

    def __init__(
        self, request_id: int, meta: bytes, body: bytes | memoryview, received_ns: int, source: Hashable = None
    ) -> None:
        self.request_id = request_id
        self.meta = meta
        self.body = body
        self.source = source
        self.received_ns = received_ns
        self.queued_ns = 0
        self.attempts = 0
        self.version: str | None = None

    def answer(self, status: int, head: bytes, body: bytes | memoryview) -> None:
        """Resolve it; a client that cannot be answered must not cost the others of its batch their answers."""
        try:
            self.resolve(status, head, body)
        except Exception:
            logger.exception("answering request %x failed", self.request_id)

    def fail(self, error: NbserveError) -> None:
        """Answer with an error as JSON."""
        body = orjson.dumps({"code": error.status, "type": error.kind, "message": error.client_text})
        self.answer(error.status, b"", body)

    def resolve(self, status: int, head: bytes, body: bytes | memoryview) -> None:
        """Answer the client; `head` is a content type or empty for JSON, as in a RESULTS frame."""
        raise NotImplementedError

    def is_gone(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return False

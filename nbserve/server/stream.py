"""Answers of the management API that go on line by line. Server process."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import orjson
from tornado.iostream import StreamClosedError

from nbserve.errors import NbserveError, StartError
from nbserve.server.api_handler import ApiHandler, error_object


class StreamHandler(ApiHandler):
    """Answers with lines of JSON until its coroutine ends, or the client hangs up, which cancels it."""

    _running: asyncio.Future[None] | None = None
    _has_begun = False

    async def follow(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Let the coroutine say its lines. An error before the first one is the answer, later it is the last line."""
        self._running = asyncio.ensure_future(coroutine)
        try:
            await self._running
        except NbserveError as error:
            if not self._has_begun:
                raise
            stack = error.traceback_text if isinstance(error, StartError) else ""
            self.say({"event": "failed", **error_object(error), "traceback": stack})
        except (asyncio.CancelledError, StreamClosedError):
            return  # The client hung up, which is known by the one or by the other first.
        # Who has read the last line may be gone before the answer's end is sent.
        with suppress(StreamClosedError):
            await self.finish()

    def say(self, event: dict[str, Any]) -> asyncio.Future[None]:
        return self.send_part(orjson.dumps(event) + b"\n")

    def send_part(self, data: bytes) -> asyncio.Future[None]:
        """Send a piece of a line; done when the connection can take more."""
        if not self._has_begun:
            self._has_begun = True
            self.set_header("Content-Type", "application/x-ndjson")
            # A proxy must not keep lines back until it has many.
            self.set_header("X-Accel-Buffering", "no")
        self.write(data)
        flushed = asyncio.ensure_future(self.flush())
        # Who does not wait for it hears of a client that hung up by `on_connection_close`.
        flushed.add_done_callback(lambda done: done.cancelled() or done.exception())
        return flushed

    def progress(self, text: str) -> None:
        self.say({"event": "progress", "text": text})

    def on_connection_close(self) -> None:
        if self._running is not None:
            self._running.cancel()

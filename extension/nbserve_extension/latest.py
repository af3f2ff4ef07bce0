"""Jupyter's server: the lines that wait for a browser. Pure but for the waiting."""

from __future__ import annotations

import asyncio
from collections import deque

import orjson


class Latest:
    """A queue that cannot grow: a `stats` line that nobody has read yet gives way to the next one."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque()
        self._is_last_replaceable = False
        self._has_ended = False
        self._news = asyncio.Event()

    def put(self, line: bytes) -> None:
        is_replaceable = orjson.loads(line)["event"] == "stats"
        if self._lines and self._is_last_replaceable and is_replaceable:
            self._lines.pop()
        self._lines.append(line)
        self._is_last_replaceable = is_replaceable
        self._news.set()

    def end(self) -> None:
        self._has_ended = True
        self._news.set()

    async def take(self) -> bytes | None:
        """The next line; None after the last one."""
        while not self._lines and not self._has_ended:
            self._news.clear()
            await self._news.wait()
        return self._lines.popleft() if self._lines else None

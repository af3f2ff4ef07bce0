"""The requests of an endpoint that failed last, kept so that they can be run again. Pure; server process."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import TypedDict

MOST_REQUESTS = 20
MOST_BYTES = 64 * 1024 * 1024
# The files of cells are named by their labels; all others by absolute paths or in angle brackets.
_CELL_LINE = re.compile(r'^[ |]*File "(?P<label>[^"/<][^"]*)", line (?P<line>\d+)', re.MULTILINE)


class FailureObject(TypedDict):
    """What a debugger is told about a failed request."""

    request_id: str
    error: str
    content_type: str
    body_bytes: int


@dataclass(frozen=True)
class Failure:
    """A request that was answered with a server error, and where it failed."""

    request_id: str
    error: str
    meta: bytes
    body: bytes
    worker: int
    pid: int | None

    @property
    def content_type(self) -> str:
        return self.meta.split(b"\0", 2)[1].decode("latin-1")

    def as_object(self) -> FailureObject:
        return FailureObject(
            request_id=self.request_id,
            error=self.error,
            content_type=self.content_type,
            body_bytes=len(self.body),
        )


class Failures:
    """The newest of them, as many as there are at most and as fit into the bytes; a larger one is not kept at all."""

    def __init__(self, most_requests: int = MOST_REQUESTS, most_bytes: int = MOST_BYTES) -> None:
        self._most_requests = most_requests
        self._most_bytes = most_bytes
        self._kept: deque[Failure] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def newest(self) -> Failure | None:
        return self._kept[-1] if self._kept else None

    def add(self, failure: Failure) -> None:
        if len(failure.body) > self._most_bytes:
            return
        self._kept.append(failure)
        self._bytes += len(failure.body)
        while len(self._kept) > self._most_requests or self._bytes > self._most_bytes:
            self._bytes -= len(self._kept.popleft().body)


def place_in_cell(traceback: str) -> str | None:
    """The innermost cell line of a traceback, such as `quickstart.ipynb, cell 7, line 12`."""
    places = _CELL_LINE.findall(traceback)
    return "{}, line {}".format(*places[-1]) if places else None

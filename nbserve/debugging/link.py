"""One connection to a worker's agent: commands out, events in."""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from contextlib import suppress
from typing import Any

from nbserve.debugwire import PROTOCOL, LineReader, address, encode
from nbserve.errors import DebugError

Event = dict[str, Any]


def can_read(end: socket.socket, limit_s: float | None = 0.0) -> bool:
    """Whether there is something to read, or the end of it, within the time."""
    poll = select.poll()  # Kernels have many files open, and select() takes only the first 1,024.
    poll.register(end, select.POLLIN)
    return bool(poll.poll(None if limit_s is None else limit_s * 1000))


class Link:
    """One connection to an agent. When the other end is gone, it reads as the event `ended`."""

    def __init__(self, path: str, who: str) -> None:
        self._reader = LineReader()
        self._events: deque[Event] = deque()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with address(path) as where:
                self._socket.connect(where)
        except OSError as error:
            self._socket.close()
            raise DebugError(f"the worker does not answer at {path}: {error.strerror}; it may have ended") from None
        self.send("hello", protocol=PROTOCOL, who=who)

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def send(self, command: str, **fields: Any) -> None:
        with suppress(OSError):  # Gone: receive() tells.
            self._socket.sendall(encode({"cmd": command, **fields}))

    def receive(self, limit_s: float | None = None, wake: socket.socket | None = None) -> Event | None:
        """The next event; None when `limit_s` passed, or `wake` could be read, before one came."""
        deadline = None if limit_s is None else time.monotonic() + limit_s
        while not self._events:
            if not self._wait(deadline, wake):
                return None
            self._read()
        return self._events.popleft()

    def await_event(self, name: str, limit_s: float, **fields: Any) -> Event | None:
        """The event of that name; the others stay for `receive`. None when it does not come in time."""
        deadline = time.monotonic() + limit_s
        others: deque[Event] = deque()
        try:
            while (event := self.receive(max(0.0, deadline - time.monotonic()))) is not None:
                if event["event"] == name and fields.items() <= event.items():
                    return event
                others.append(event)
                if event["event"] == "ended":
                    break
            return None
        finally:
            self._events.extendleft(reversed(others))

    def _wait(self, deadline: float | None, wake: socket.socket | None) -> bool:
        """Whether there is something to read here; False when the time is up or only `wake` can be read."""
        poll = select.poll()
        for end in (self._socket, wake):
            if end is not None:
                poll.register(end, select.POLLIN)
        left_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        return any(fd == self._socket.fileno() for fd, _ in poll.poll(left_ms))

    def _read(self) -> None:
        try:
            data = self._socket.recv(65536)
        except OSError:
            data = b""
        try:
            self._events.extend(self._reader.feed(data))
        except ValueError as error:
            self._events.append(
                {"event": "ended", "text": f"the worker's debugger says what nobody understands: {error}"}
            )
        if not data:
            self._events.append({"event": "ended", "text": "the worker has hung up"})

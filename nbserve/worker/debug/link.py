"""One debugger's connection, and its screen and keyboard as a file that pdb reads and writes. Runs in the worker."""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from nbserve import debugwire

RECEIVE_BYTES = 64 * 1024
SEND_CHARACTERS = 64 * 1024
SHOWN_CHARACTERS = 1_000_000
PATIENCE_S = 2.0
LOOK_INTERVAL_S = 0.1
Message = dict[str, Any]


class Link:
    """A connection whose sender may be any thread. What comes for a prompt waits in `replies`, None is its end."""

    def __init__(self, connection: socket.socket) -> None:
        # Whether the worker is the debugger's to keep waiting: at a prompt a stopped terminal is one that thinks.
        self.is_patient = False
        self.is_over = False
        self._connection = connection
        self._turn = threading.Lock()
        self.replies: queue.SimpleQueue[Message | None] = queue.SimpleQueue()

    def send(self, event: str, **values: Any) -> None:
        data = memoryview(debugwire.encode({"event": event, **values}))
        # A peer that is gone is noticed by the thread that reads, which then ends the session.
        with self._turn, contextlib.suppress(OSError, ValueError):
            while data:
                data = data[self._send_some(data) :]

    def _send_some(self, data: memoryview) -> int:
        """Send what fits; a peer that does not read while the worker is not its own is hung up on."""
        blocked_since_s = time.monotonic()
        while True:
            with contextlib.suppress(BlockingIOError):
                return self._connection.send(data, socket.MSG_DONTWAIT)
            poll = select.poll()
            poll.register(self._connection, select.POLLOUT)
            is_blocked = not poll.poll(LOOK_INTERVAL_S * 1000)
            if is_blocked and not self.is_patient and time.monotonic() - blocked_since_s > PATIENCE_S:
                self.hang_up()
                raise BrokenPipeError

    def messages(self) -> Iterator[Message]:
        """What the debugger says, until it hangs up or says what is no message."""
        reader = debugwire.LineReader()
        with contextlib.suppress(OSError, ValueError):
            while data := self._connection.recv(RECEIVE_BYTES):
                yield from reader.feed(data)

    def hang_up(self) -> None:
        """End both directions, which ends `messages` too; what was sent still arrives."""
        self.is_over = True
        self.replies.put(None)
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def forget(self) -> None:
        """Close this process's copy alone: a fork of the worker is nobody's to debug."""
        self._connection.close()


class Console:
    """A debugger's screen and keyboard as a text file. What stands after the last newline when a line is read is the
    prompt: so every prompt of pdb, of its continuation lines and of what the user calls takes the same way."""

    encoding = "utf-8"
    errors = "strict"
    closed = False

    def __init__(self, link: Link) -> None:
        self.complete: Callable[[str, int, int], list[str]] = lambda line, begin, end: []
        self._link = link
        self._written = ""
        self._lines: deque[str] = deque()
        self._is_at_end = False
        self.is_waiting = False

    def isatty(self) -> bool:
        return False

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._written += _cut(text)
        if "\n" in text:
            shown, newline, self._written = self._written.rpartition("\n")
            self._show(shown + newline)
        return len(text)

    def _show(self, text: str) -> None:
        for begin in range(0, len(text), SEND_CHARACTERS):
            self._link.send("out", text=text[begin : begin + SEND_CHARACTERS])

    def flush(self) -> None:
        """Nothing: whole lines have gone out, and the rest may yet become a prompt."""

    def close_line(self) -> None:
        """Show what was written without a newline at its end."""
        if self._written:
            self.write("\n")

    def readline(self, limit: int = -1) -> str:
        """The next line with its newline, empty when the debugger left. A reply may be several lines."""
        prompt, self._written = self._written, ""
        if not self._lines and not self._is_at_end:
            self._link.send("prompt", text=prompt)
            self._lines.extend(self._reply())
        # What was sent just before it left could go on forever, with nobody to end it.
        return self._lines.popleft() if self._lines and not self._link.is_over else ""

    def _reply(self) -> list[str]:
        while (message := self._next()) is not None:
            if message["cmd"] == "reply":
                return [line + "\n" for line in str(message.get("text", "")).split("\n")]
            self._send_completions(message)
        self._is_at_end = True
        return []

    def _next(self) -> Message | None:
        self.is_waiting = True
        try:
            return self._link.replies.get()
        finally:
            self.is_waiting = False

    def _send_completions(self, message: Message) -> None:
        try:
            line, begin, end = str(message["line"]), int(message["begin"]), int(message["end"])
            items = self.complete(line, begin, end)
        except Exception:
            # What is completed is looked up in the user's objects, and no message may break the request.
            items = []
        self._link.send("completions", id=message.get("id"), items=items)


def _cut(text: str) -> str:
    """What is printed at once, as far as anybody can look at it."""
    if len(text) <= SHOWN_CHARACTERS:
        return text
    return f"{text[:SHOWN_CHARACTERS]}... ({len(text):,} characters)" + "\n" * text.endswith("\n")

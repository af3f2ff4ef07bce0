"""One debugger's connection, and its screen and keyboard as a file that pdb reads and writes. Runs in the worker."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from nbserve import debugwire

RECEIVE_BYTES = 64 * 1024
Message = dict[str, Any]


class Link:
    """A connection whose sender may be any thread. What comes for a prompt waits in `replies`, None is its end."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._turn = threading.Lock()
        self.replies: queue.SimpleQueue[Message | None] = queue.SimpleQueue()

    def send(self, event: str, **values: Any) -> None:
        data = debugwire.encode({"event": event, **values})
        # A peer that is gone is noticed by the thread that reads, which then ends the session.
        with self._turn, contextlib.suppress(OSError):
            self._connection.sendall(data)

    def messages(self) -> Iterator[Message]:
        """What the debugger says, until it hangs up or says what is no message."""
        reader = debugwire.LineReader()
        with contextlib.suppress(OSError, ValueError):
            while data := self._connection.recv(RECEIVE_BYTES):
                yield from reader.feed(data)

    def hang_up(self) -> None:
        """End both directions, which ends `messages` too; what was sent still arrives."""
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

    def isatty(self) -> bool:
        return False

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._written += text
        if "\n" in text:
            shown, newline, self._written = self._written.rpartition("\n")
            self._link.send("out", text=shown + newline)
        return len(text)

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
        return self._lines.popleft() if self._lines else ""

    def _reply(self) -> list[str]:
        while (message := self._link.replies.get()) is not None:
            if message["cmd"] == "reply":
                return [line + "\n" for line in str(message.get("text", "")).split("\n")]
            self._send_completions(message)
        self._is_at_end = True
        return []

    def _send_completions(self, message: Message) -> None:
        try:
            line, begin, end = str(message["line"]), int(message["begin"]), int(message["end"])
            items = self.complete(line, begin, end)
        except Exception:
            # What is completed is looked up in the user's objects, and no message may break the request.
            items = []
        self._link.send("completions", id=message.get("id"), items=items)

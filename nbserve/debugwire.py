"""What a debugger and a worker's agent say to each other: JSON lines over a Unix socket. Used by both sides.

The debugger (kernel or terminal) sends commands, objects with the key "cmd"; the agent answers with events, objects
with the key "event". The shape follows the remote attach of CPython 3.14's pdb.

    hello      protocol, who                 first of all; answered by the event `hello`
    stack                                    the stacks of the worker's threads, as the event `stack`; any time
    attach     repeat                        take the hold there is, else the next breakpoint()
    stop       at, if, token, repeat         stop at the next matching call; answered by `armed` or `refused`
    interrupt                                a prompt in what runs now
    post_mortem                              a prompt in the newest exception, while the worker goes on
    debugpy    port                          start debugpy; answered by `listening`
    reply      text                          a line for the last `prompt`
    complete   id, line, begin, end          completions of line[begin:end], as the event `completions`
    detach                                   clear all, let the request go on; closing the socket does the same

attach, stop, interrupt, post_mortem and debugpy make the connection the worker's debugger; only one can be.

    hello      protocol, worker, pid, held, debugger      held: Held or null; debugger: who has it or null
    stack      text
    armed      text                          what it will stop at
    refused    text                          last event: the command cannot be carried out
    listening  port                          where debugpy waits for an editor
    held       reason, file, line, function, request_ids  the worker stopped here
    out        text                          output of the debugger
    prompt     text                          it waits for a `reply`
    completions id, items
    note       text                          something to tell beside the output, such as a condition that raised
    resumed                                  the worker goes on; more stops may follow
    ended      text                          last event: why the session is over
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypedDict

import orjson

PROTOCOL = 1
MAX_LINE_BYTES = 16 * 1024 * 1024
# Longer paths do not fit into a Unix socket's address; they are reached by way of their folder.
MAX_PATH_BYTES = 100
# In the progress of a start: a worker waits for a debugger.
IS_HELD = "is held at"

_UCRED = struct.Struct("iII")

Reason = Literal["breakpoint", "stop", "interrupt", "exception"]


class Held(TypedDict):
    """Where a worker is held. `file` is the cell's label, `request_ids` are the ids that clients and the log see."""

    reason: Reason
    file: str
    line: int
    function: str
    request_ids: list[str]


def encode(message: dict[str, Any]) -> bytes:
    """One line. What is no Unicode, such as lone surrogates in what somebody prints, becomes question marks."""
    try:
        return orjson.dumps(message, default=str) + b"\n"
    except TypeError:
        return json.dumps(message, default=str, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


class LineReader:
    """Cuts a byte stream into messages; raises ValueError for a line that is no JSON object or too long."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        self._pending += data
        *lines, rest = self._pending.split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise ValueError(f"a line of more than {MAX_LINE_BYTES} bytes")
        self._pending = bytearray(rest)
        for line in lines:
            message = orjson.loads(line)
            if not isinstance(message, dict):
                raise ValueError(f"a message is an object, not {line[:80]!r}")
            yield message


@contextmanager
def address(path: str) -> Iterator[str]:
    """The address to bind or connect a Unix socket at `path` with, however long the path is (Linux)."""
    if len(os.fsencode(path)) <= MAX_PATH_BYTES:
        yield path
        return
    folder = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{Path(path).name}"
    finally:
        os.close(folder)


def peer_uid(connection: socket.socket) -> int | None:
    """The user at the other end, None where the system does not tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    _, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(uid)

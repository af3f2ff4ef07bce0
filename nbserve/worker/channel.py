"""The worker's end of its socket: blocking, one frame after the other, into memory that is used again."""

from __future__ import annotations

import itertools
import os
import select
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

from nbserve import wire

ARENA_BYTES = 256 * 1024
KEPT_ARENA_BYTES = 64 * 1024 * 1024
JOIN_BYTES = 64 * 1024
MAX_BUFFERS = 512
POLL_AHEAD_NS = 150_000


class Channel:
    """Reads frames into one arena: fresh memory for each large frame would cost more than twice the time."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._arena = memoryview(bytearray(ARENA_BYTES))
        self._start = self._end = 0
        self._polls_ahead = False
        # Debuggers' threads send too.
        self._turn = threading.Lock()

    def receive(self) -> tuple[int, int, memoryview] | None:
        """The next frame as (kind, row count, payload), None when the server hung up.

        The payload is a view into the arena and good until the next call.
        """
        if not self._fill(wire.HEADER_BYTES):
            return None
        kind, count, length = wire.decode_header(self._arena[self._start : self._end])
        if not self._fill(wire.HEADER_BYTES + length):
            return None
        # A lone row means a lone client, who waits for nothing but us, and a core that has nothing else to do.
        self._polls_ahead = count == 1
        payload_at = self._start + wire.HEADER_BYTES
        self._start = payload_at + length
        return kind, count, self._arena[payload_at : self._start]

    def is_quiet_for(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s`; whether nothing came in that time."""
        return self._start == self._end and not self._poll.poll(max(0.0, timeout_s) * 1000)

    def put_back(self, frames: Iterable[tuple[int, int, bytes]]) -> None:
        """Have these frames read again, before what was not read yet."""
        unread = bytes(self._arena[self._start : self._end])
        data = b"".join(wire.encode_header(kind, count, len(payload)) + payload for kind, count, payload in frames)
        # A new arena, as views into the old one may be alive.
        self._arena = memoryview(bytearray(max(ARENA_BYTES, len(data) + len(unread))))
        self._start, self._end = 0, len(data) + len(unread)
        self._arena[: self._end] = data + unread

    def send_message(self, message: dict[str, Any]) -> None:
        with self._turn:
            self._socket.sendall(wire.encode_message(wire.EVENT, message))

    def send(self, buffers: Sequence[bytes | memoryview]) -> None:
        """Send a frame: small ones joined, large ones without copying them."""
        with self._turn:
            if sum(map(len, buffers)) < JOIN_BYTES:
                self._socket.sendall(b"".join(buffers))
                return
            pending = iter(buffers)
            while chunk := list(itertools.islice(pending, MAX_BUFFERS)):
                self._send_all(chunk)

    def _send_all(self, buffers: list[bytes | memoryview]) -> None:
        sent = self._socket.sendmsg(buffers)
        for buffer in buffers:
            if sent < len(buffer):
                self._socket.sendall(memoryview(buffer)[sent:])
            sent = max(0, sent - len(buffer))

    def _fill(self, wanted: int) -> bool:
        """Read until `wanted` bytes of the frame are there; False when the server hung up first."""
        if self._start == self._end:
            self._start_over()
        if self._start + wanted > len(self._arena):
            self._make_room(wanted)
        if self._polls_ahead and self._start == self._end:
            self._poll_ahead()
        while self._end - self._start < wanted:
            received = self._socket.recv_into(self._arena[self._end :])
            if not received:
                return False
            self._end += received
        return True

    def _start_over(self) -> None:
        self._start = self._end = 0
        if len(self._arena) > KEPT_ARENA_BYTES:
            self._arena = memoryview(bytearray(ARENA_BYTES))

    def _poll_ahead(self) -> None:
        """Look again and again, for as long as waking up from a sleep would take, whether a frame comes."""
        deadline_ns = time.monotonic_ns() + POLL_AHEAD_NS
        while not self._poll.poll(0) and time.monotonic_ns() < deadline_ns:
            os.sched_yield()

    def _make_room(self, wanted: int) -> None:
        """Move what is unread to the front of an arena that is large enough."""
        unread = self._arena[self._start : self._end]
        if wanted > len(self._arena):
            # A new one, as views into the old one may be alive.
            self._arena = memoryview(bytearray(1 << (wanted - 1).bit_length()))
        self._arena[: len(unread)] = unread
        self._start, self._end = 0, len(unread)

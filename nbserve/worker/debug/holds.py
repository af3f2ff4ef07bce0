"""Where the worker is held, and what the server is told of it. Runs in the worker."""

from __future__ import annotations

import threading
import types
from dataclasses import dataclass
from typing import Any

from nbserve import wire
from nbserve.debugwire import Held, Reason
from nbserve.worker.channel import Channel
from nbserve.worker.context import request_text
from nbserve.worker.debug.stacks import place_of


@dataclass(frozen=True)
class Hold:
    """One stop of one thread."""

    reason: Reason
    file: str
    line: int
    function: str
    request_ids: tuple[int, ...]
    thread: int

    @classmethod
    def at(cls, frame: types.FrameType, reason: Reason, request_ids: tuple[int, ...]) -> Hold:
        return cls(reason, *place_of(frame), request_ids, threading.get_ident())

    def told(self, id_prefix: str) -> Held:
        """The hold in a debugger's words."""
        return {
            "reason": self.reason,
            "file": self.file,
            "line": self.line,
            "function": self.function,
            "request_ids": [request_text(id_prefix, number) for number in self.request_ids],
        }

    def event(self, wait_s: float | None) -> dict[str, Any]:
        """The hold in the server's words; it goes on by itself after `wait_s`."""
        place = {"file": self.file, "line": self.line, "function": self.function}
        ids = list(self.request_ids)
        return {"event": "held", "reason": self.reason, **place, "request_ids": ids, "wait_s": wait_s}


class Acknowledgements:
    """The server's answers to holds. Each names the batches it took back, which the worker must not run any more."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._turn = threading.Lock()
        self._awaited = 0

    def expect(self) -> None:
        with self._turn:
            self._awaited += 1

    def arrived(self) -> None:
        with self._turn:
            self._awaited -= 1

    def await_all(self) -> None:
        """Read on until all have come, then put back what else was read, less the batches that were taken back."""
        kept: list[tuple[int, int, bytes]] = []
        dropped: set[int] = set()
        while self._awaited > 0 and (frame := self._channel.receive()) is not None:
            kind, count, payload = frame
            if kind == wire.CONTROL and (message := wire.decode_message(payload))["op"] == "hold_taken":
                dropped.update(message["dropped"])
                self.arrived()
            else:
                kept.append((kind, count, bytes(payload)))
        self._channel.put_back(frame for frame in kept if not _is_dropped(*frame, dropped))


def _is_dropped(kind: int, count: int, payload: bytes, dropped: set[int]) -> bool:
    return kind == wire.BATCH and wire.decode_batch(count, memoryview(payload)).batch_id in dropped

"""Steady open-loop load: so many requests a second on kept-alive connections, every failure counted."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType


@dataclass
class Answers:
    """What the senders saw: answered requests with their end times, failures as texts."""

    answered: list[tuple[float, bytes]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def first_after(self, start_s: float, answer: bytes) -> float | None:
        """Seconds from `start_s` (perf_counter) to the end of the first request that got this answer."""
        ends = [end_s - start_s for end_s, body in self.answered if body == answer and end_s > start_s]
        return min(ends, default=None)


class SteadyLoad:
    """A context manager that sends while its block runs; the outcome is in `answers`."""

    SENDERS = 8

    def __init__(self, port: int, path: str, body: bytes, content_type: str, requests_per_s: float) -> None:
        self.answers = Answers()
        self._port, self._path, self._body, self._content_type = port, path, body, content_type
        self._gap_s = self.SENDERS / requests_per_s
        self._stop = threading.Event()
        self._senders = [threading.Thread(target=self._send, args=(index,)) for index in range(self.SENDERS)]

    def __enter__(self) -> SteadyLoad:
        for sender in self._senders:
            sender.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for sender in self._senders:
            sender.join()

    def _send(self, index: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        due_s = time.perf_counter() + self._gap_s * index / self.SENDERS
        while not self._stop.wait(max(0.0, due_s - time.perf_counter())):
            due_s += self._gap_s
            try:
                connection.request("POST", self._path, self._body, {"Content-Type": self._content_type})
                response = connection.getresponse()
                answer = response.read()
            except (OSError, http.client.HTTPException) as error:
                self.answers.failed.append(f"{type(error).__name__}: {error}")
                connection.close()
                continue
            if response.status == 200:
                self.answers.answered.append((time.perf_counter(), answer))
            else:
                self.answers.failed.append(f"status {response.status}: {answer[:120]!r}")
        connection.close()

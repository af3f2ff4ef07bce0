"""Asks an endpoint as a job says, and counts what comes back. Runs in the load generator's process.

A closed loop has N clients, each of which waits for its answer before it asks again. An open loop asks R times a second
whether answers come or not, and counts each latency from when its request was due: a server that stalls cannot hide
that by keeping the client waiting (coordinated omission; Gil Tene, "How NOT to Measure Latency", and his wrk2).
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from nbserve.load.connections import Connections
from nbserve.load.job import Job, Outcome, Progress


@dataclass
class Tally:
    """Counts answers while they come."""

    began_s: float = field(default_factory=time.monotonic)
    ended_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, asked_s: float, result: str) -> None:
        self.ended_s = time.monotonic()
        if result.startswith("2"):
            self.latencies_s.append(self.ended_s - asked_s)
        else:
            self.errors[result] += 1

    def progress(self) -> Progress:
        return {"requests": len(self.latencies_s) + self.errors.total(), "errors": dict(self.errors)}

    def outcome(self) -> Outcome:
        seconds = max(1e-6, (self.ended_s or time.monotonic()) - self.began_s)
        return {
            **self.progress(),
            "seconds": seconds,
            "rate": len(self.latencies_s) / seconds,
            "latency_ms": _quantiles([1000 * latency for latency in sorted(self.latencies_s)]),
        }


def _quantiles(ordered: Sequence[float]) -> dict[str, float]:
    if not ordered:
        return {}
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    found = {name: ordered[min(len(ordered) - 1, int(len(ordered) * share))] for name, share in shares.items()}
    return {**found, "mean": sum(ordered) / len(ordered)}


class Generator:
    """Runs jobs on the requests that it was given."""

    def __init__(self) -> None:
        self._connections = Connections()
        self._requests: list[tuple[str, bytes]] = []
        self._messages: list[bytes] = []
        self._where = ("", 0)

    def take(self, requests: Sequence[tuple[str, str]]) -> None:
        self._requests = [(kind, base64.b64decode(body)) for kind, body in requests]

    async def run(self, job: Job, tally: Tally, stop: asyncio.Event) -> None:
        """Until the job is done or `stop` is set; what is on its way then is waited for."""
        self._aim(job.url)
        if job.rate is not None:
            await self._open_loop(job, tally, stop)
        else:
            await self._closed_loop(job, tally, stop)

    def _aim(self, url: str) -> None:
        parts = urlsplit(url)
        self._where = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._messages = [_message(parts.path, parts.netloc, kind, body) for kind, body in self._requests]

    async def _ask(self, number: int, asked_s: float, tally: Tally) -> None:
        message = self._messages[number % len(self._messages)]
        tally.add(asked_s, await self._connections.ask(self._where, message))

    async def _closed_loop(self, job: Job, tally: Tally, stop: asyncio.Event) -> None:
        numbers = job.numbers()
        await asyncio.gather(*(self._client(job, numbers, tally, stop) for _ in range(job.clients)))

    async def _client(self, job: Job, numbers: Iterator[int], tally: Tally, stop: asyncio.Event) -> None:
        end_s = tally.began_s + job.seconds
        while not stop.is_set() and (now_s := time.monotonic()) < end_s:
            number = next(numbers, None)
            if number is None:
                return
            failed = tally.errors.total()
            await self._ask(number, now_s, tally)
            if tally.errors.total() > failed:
                # A server that refuses at once must not be flooded.
                await asyncio.sleep(0.01)

    async def _open_loop(self, job: Job, tally: Tally, stop: asyncio.Event) -> None:
        waiting: set[asyncio.Task[None]] = set()
        for number, after_s in zip(job.numbers(), job.due_s(), strict=False):
            due_s = tally.began_s + after_s
            if after_s >= job.seconds or await _is_set_before(stop, due_s):
                break
            task = asyncio.create_task(self._ask(number, due_s, tally))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=job.drain_s)
            for task in late:
                task.cancel()
                tally.errors[f"no answer {job.drain_s:g} s after the end"] += 1


async def _is_set_before(stop: asyncio.Event, due_s: float) -> bool:
    """Wait until `due_s`; whether `stop` was set meanwhile."""
    left_s = due_s - time.monotonic()
    if left_s <= 0:
        await asyncio.sleep(0)
        return stop.is_set()
    try:
        await asyncio.wait_for(stop.wait(), left_s)
    except asyncio.TimeoutError:
        return False
    return True


def _message(path: str, host: str, kind: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode("latin-1") + body

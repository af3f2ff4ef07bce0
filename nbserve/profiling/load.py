"""Load on a server from a process of its own, which ends when its standard input does: `python -m` starts it.

A closed loop has N clients, each of which waits for its answer before it asks again. An open loop asks R times a second
whether answers come or not, and counts each latency from when its request was due: a server that stalls cannot hide
that by keeping the client waiting (coordinated omission; Gil Tene, "How NOT to Measure Latency", and his wrk2).

Orders and what came of them are lines of JSON: `{"do": "requests", "requests": [[content type, body in base64], ...]}`,
then any number of `{"do": "run", ...Job}`, each answered by an Outcome; `{"do": "stop"}` ends a run early.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict
from urllib.parse import urlsplit

import httptools
import orjson

ANSWER_LIMIT_S = 60.0
DRAIN_LIMIT_S = 10.0
MOST_CONNECTIONS = 1_000
_MOST_LINE_BYTES = 2**31


@dataclass(frozen=True)
class Job:
    """What to do with `url`: `rate` requests a second, or as many as `clients` that wait for their answers get.

    It ends after `seconds` or `count` requests; the first request is number `first` of those that take turns. With
    `is_poisson` the requests of a rate come by chance, the same in each run. Answers that take longer than `drain_s`
    after the end count as errors at a rate.
    """

    url: str
    seconds: float
    clients: int = 1
    rate: float | None = None
    count: int | None = None
    first: int = 0
    is_poisson: bool = False
    drain_s: float = DRAIN_LIMIT_S

    def numbers(self) -> Iterator[int]:
        end = None if self.count is None else self.first + self.count
        return iter(range(self.first, end)) if end is not None else itertools.count(self.first)

    def due_s(self) -> Iterator[float]:
        """When each request of a rate is due, from the beginning on."""
        assert self.rate is not None
        if not self.is_poisson:
            return (number / self.rate for number in itertools.count())
        rng, rate = random.Random(self.first), self.rate
        return itertools.accumulate((rng.expovariate(rate) for _ in itertools.count()), initial=0.0)


class Outcome(TypedDict):
    """What came back: `errors` by HTTP status or by what went wrong, `rate` in good answers per second."""

    requests: int
    errors: dict[str, int]
    seconds: float
    rate: float
    latency_ms: dict[str, float]


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

    def outcome(self) -> Outcome:
        seconds = max(1e-6, (self.ended_s or time.monotonic()) - self.began_s)
        return {
            "requests": len(self.latencies_s) + self.errors.total(),
            "errors": dict(self.errors),
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


class Connection(asyncio.Protocol):
    """One connection that stays open; one request at a time."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[str] | None = None
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self.is_open = True

    async def ask(self, message: bytes) -> str:
        """The status of the answer, or what went wrong."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(message)
        try:
            return await asyncio.wait_for(self._answer, ANSWER_LIMIT_S)
        except asyncio.TimeoutError:
            self.close()
            return f"no answer within {ANSWER_LIMIT_S:g} s"
        except asyncio.CancelledError:
            self.close()
            raise

    def close(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._settle(f"no HTTP: {error}")
            self.close()

    def on_message_complete(self) -> None:
        self.is_open = self.is_open and self._parser.should_keep_alive()
        status = str(self._parser.get_status_code())
        self._parser = httptools.HttpResponseParser(self)
        self._settle(status)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        self._settle("connection closed")

    def _settle(self, result: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(result)


class Connections:
    """Open connections by host, kept from run to run."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int], list[Connection]] = {}
        self._free = asyncio.Semaphore(MOST_CONNECTIONS)

    async def ask(self, where: tuple[str, int], message: bytes) -> str:
        async with self._free:
            try:
                connection = await self._take(where)
            except OSError as error:
                return f"no connection: {error.strerror or error}"
            result = await connection.ask(message)
            if connection.is_open:
                self._idle[where].append(connection)
            return result

    async def _take(self, where: tuple[str, int]) -> Connection:
        idle = self._idle.setdefault(where, [])
        while idle:
            if (connection := idle.pop()).is_open:
                return connection
        _, connection = await asyncio.get_running_loop().create_connection(Connection, *where)
        return connection


class Generator:
    """Runs jobs on the requests that it was given."""

    def __init__(self) -> None:
        self._connections = Connections()
        self._requests: list[tuple[str, bytes]] = []
        self._messages: list[bytes] = []
        self._where = ("", 0)

    def take(self, requests: Sequence[tuple[str, str]]) -> None:
        self._requests = [(kind, base64.b64decode(body)) for kind, body in requests]

    async def run(self, job: Job, stop: asyncio.Event) -> Outcome:
        """Until the job is done or `stop` is set; what is on its way then is waited for."""
        self._aim(job.url)
        tally = Tally()
        if job.rate is not None:
            await self._open_loop(job, tally, stop)
        else:
            await self._closed_loop(job, tally, stop)
        return tally.outcome()

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


async def obey(orders: asyncio.StreamReader) -> None:
    """Carry out orders until there are no more; a run in progress ends with them."""
    generator = Generator()
    stop = asyncio.Event()
    running: asyncio.Task[None] | None = None
    while line := await orders.readline():
        order: dict[str, Any] = orjson.loads(line)
        what = order.pop("do")
        if what == "requests":
            generator.take(order["requests"])
        elif what == "stop":
            stop.set()
        else:
            stop = asyncio.Event()
            running = asyncio.create_task(_run(generator, Job(**order), stop))
    if running is not None:
        running.cancel()


async def _run(generator: Generator, job: Job, stop: asyncio.Event) -> None:
    outcome = await generator.run(job, stop)
    sys.stdout.buffer.write(orjson.dumps(outcome) + b"\n")
    sys.stdout.flush()


async def main() -> None:
    orders = asyncio.StreamReader(limit=_MOST_LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    await obey(orders)
    # Connections may still be open; there is nothing to say goodbye for.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())

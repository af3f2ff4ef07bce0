"""The last few thousand requests with the time each stage took. Pure; server process."""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from itertools import accumulate, chain, islice, pairwise, takewhile
from typing import NamedTuple, Protocol

from nbserve.recording import Span
from nbserve.server.ticket import Ticket
from nbserve.wire import Stamps

STAGES = (
    "receive_ms",
    "queue_ms",
    "batch_wait_ms",
    "ipc_ms",
    "preprocess_ms",
    "inference_ms",
    "postprocess_ms",
    "encode_ms",
    "respond_ms",
    "total_ms",
)

_SAMPLED_BATCHES = 200
_SAMPLED_ROWS = 1000
_LATENCIES = 250
_CHUNK_ROWS = 500
MOST_COLLECTED = 200_000


class Kept(NamedTuple):
    """What there still is of the requests answered since a time: `since_ns` is later where older ones were dropped."""

    since_ns: int
    failed: int
    batch_sizes: Counter[int]


class Timings(NamedTuple):
    """What requests took: some latencies that stand for all, in order, and the mean of each stage but the total."""

    latencies_ms: list[float]
    stages_ms: list[float]


class SentBatch(Protocol):
    """A batch as the channel kept it: `started_ns` is when the worker was free for it, after the batch before it."""

    batch_id: int
    tickets: list[Ticket]
    sent_ns: int
    started_ns: int


class _Batch(NamedTuple):
    """One answered batch; `rows` holds all request ids, then all received, then all queued times.

    `failed` counts the rows that were answered with an error.
    """

    batch_id: int
    worker: int
    held_since_ns: int
    dispatched_ns: int
    started_ns: int
    stamps: Stamps
    sent_ns: int
    rows: array[int]
    failed: int

    @property
    def size(self) -> int:
        return len(self.rows) // 3

    @property
    def answered_ns(self) -> int:
        """When the worker was done with it."""
        return max(self.stamps) or self.sent_ns

    def stages(self) -> Iterator[tuple[int, tuple[float, ...]]]:
        """Request id and durations, in the order of STAGES, of each row."""
        free_ns, shared = self._shared()
        sent_ns = free_ns + sum(shared)
        worker_ms = [stage_ns / 1e6 for stage_ns in shared]
        size = self.size
        for request_id, received_ns, queued_ns in zip(
            self.rows[:size], self.rows[size : 2 * size], self.rows[2 * size :], strict=True
        ):
            held_ns = max(0, self.dispatched_ns - max(queued_ns, self.held_since_ns)) if self.held_since_ns else 0
            queue_ms = (free_ns - queued_ns - held_ns) / 1e6
            received_ms = (queued_ns - received_ns) / 1e6
            total_ms = (sent_ns - received_ns) / 1e6
            yield request_id, (received_ms, queue_ms, held_ns / 1e6, *worker_ms, total_ms)

    def totals_ns(self, first: int, step: int) -> Iterator[int]:
        """The whole time of every so many-th row."""
        size, sent_ns = self.size, self.sent_ns
        return (sent_ns - received_ns for received_ns in self.rows[size + first : 2 * size : step])

    def sums_ns(self) -> Iterator[int]:
        """What its rows took together, in the order of STAGES but for the total."""
        free_ns, shared = self._shared()
        size = self.size
        received, queued = self.rows[size : 2 * size], self.rows[2 * size :]
        held_ns, queued_ns = 0, sum(queued)
        if self.held_since_ns:
            held_ns = sum(max(0, self.dispatched_ns - max(row_ns, self.held_since_ns)) for row_ns in queued)
        yield queued_ns - sum(received)
        yield size * free_ns - queued_ns - held_ns
        yield held_ns
        yield from (size * stage_ns for stage_ns in shared)

    def _shared(self) -> tuple[int, list[int]]:
        """When its worker was free for it, and how long each stage took that its rows went through together."""
        free_ns = min(max(self.dispatched_ns, self.started_ns), max(self.stamps.taken_ns, self.dispatched_ns))
        # A batch that failed early leaves stamps at 0: its later stages took no time.
        marks = list(accumulate((free_ns, *self.stamps, self.sent_ns), max))
        return free_ns, [end_ns - start_ns for start_ns, end_ns in pairwise(marks)]


class SpanStore:
    """Keeps whole batches, as recorded; requests are spelled out only when somebody asks."""

    def __init__(self, id_prefix: str = "", capacity: int = 4096) -> None:
        self._id_prefix = f"{id_prefix}-" if id_prefix else ""
        self._capacity = capacity
        self._batches: deque[_Batch] = deque()
        self._rows = 0
        self._collectors: tuple[Collector, ...] = ()

    def __len__(self) -> int:
        return self._rows

    def record(
        self,
        worker: int,
        batch: SentBatch,
        stamps: Stamps,
        sent_ns: int,
        held_since_ns: int = 0,
        source: object = None,
        failed: int = 0,
    ) -> None:
        """Keep an answered batch; `held_since_ns` is what `Batcher.held_since_ns` said when it was taken.

        `source` is who answered it: versions of an endpoint share a store, and may each have a worker 0. `failed` rows
        of it got an error.
        """
        tickets = batch.tickets
        rows = array("q", [t.request_id for t in tickets])
        rows.extend([t.received_ns or t.queued_ns for t in tickets])
        rows.extend([t.queued_ns for t in tickets])
        times = (held_since_ns, batch.sent_ns, batch.started_ns, stamps, sent_ns)
        kept = _Batch(batch.batch_id, worker, *times, rows, failed)
        self._batches.append(kept)
        for collector in self._collectors:
            collector.add(kept, source)
        self._rows += len(tickets)
        while self._rows > self._capacity and len(self._batches) > 1:
            self._rows -= self._batches.popleft().size

    def collect(self, source: object) -> Collector:
        """Keep all that `source` answers from now on, until `stop_collecting`."""
        collector = Collector(self._spans, source)
        self._collectors = (*self._collectors, collector)
        return collector

    def stop_collecting(self, collector: Collector) -> None:
        self._collectors = tuple(other for other in self._collectors if other is not collector)

    def last(self, count: int) -> list[Span]:
        """The newest `count` requests, oldest first."""
        newest = islice((span for batch in reversed(self._batches) for span in reversed(self._spans(batch))), count)
        return list(newest)[::-1]

    def find(self, request_id: int) -> Span | None:
        """That request, None when it is not kept."""
        for batch in reversed(self._batches):
            ids = batch.rows[: batch.size]
            if request_id in ids:
                return self._spans(batch)[ids.index(request_id)]
        return None

    def kept(self, since_ns: int) -> Kept:
        """The requests answered since then, as far back as they are kept."""
        batches = self._since(since_ns)
        if len(batches) == len(self._batches) and self._rows > self._capacity // 2:
            # Others may have been answered between then and the oldest: count from there.
            since_ns = batches.pop().sent_ns
        return Kept(
            since_ns=since_ns,
            failed=sum(batch.failed for batch in batches),
            batch_sizes=Counter(batch.size for batch in batches),
        )

    def timings(self, since_ns: int, until_ns: int) -> Timings:
        """Of the requests answered after one time and up to another, as far back as they are kept."""
        batches = [batch for batch in self._since(since_ns) if batch.sent_ns <= until_ns]
        # Ten milliseconds of arithmetic would be seen in every client's p99: a part of them tells as much.
        sample = batches[:: 1 + len(batches) // _SAMPLED_BATCHES]
        rows = sum(batch.size for batch in sample)
        step = 1 + rows // _SAMPLED_ROWS
        # From another row on in each batch: its first ones waited longest.
        latencies_ns = sorted(chain(*(batch.totals_ns(i % step, step) for i, batch in enumerate(sample))))
        step = 1 + len(latencies_ns) // _LATENCIES
        sums = zip(*(batch.sums_ns() for batch in sample), strict=True)
        return Timings(
            latencies_ms=[total_ns / 1e6 for total_ns in latencies_ns[step // 2 :: step]],
            stages_ms=[sum(column) / rows / 1e6 for column in sums],
        )

    def _since(self, since_ns: int) -> list[_Batch]:
        """Newest first."""
        return list(takewhile(lambda batch: batch.sent_ns > since_ns, reversed(self._batches)))

    def _spans(self, batch: _Batch) -> list[Span]:
        return [
            {
                "request_id": f"{self._id_prefix}{request_id:x}",
                "batch_id": batch.batch_id,
                "rows": batch.size,
                "worker": batch.worker,
                "received_ns": batch.rows[batch.size + i],
                **dict(zip(STAGES, stages, strict=True)),  # type: ignore[typeddict-item]
            }
            for i, (request_id, stages) in enumerate(batch.stages())
        ]


class Collector:
    """The batches of one source, however many its store keeps; no more than `MOST_COLLECTED` requests.

    `batches` counts those of `workers`.
    """

    def __init__(self, spell: Callable[[_Batch], list[Span]], source: object) -> None:
        self.workers: set[int] = set()
        self.batches = 0
        self._spell = spell
        self._source = source
        self._kept: deque[_Batch] = deque()
        self._rows = 0

    def add(self, batch: _Batch, source: object) -> None:
        if source is not self._source:
            return
        self.batches += batch.worker in self.workers
        if self._rows < MOST_COLLECTED:
            self._kept.append(batch)
            self._rows += batch.size

    def spans(self, start_ns: int, end_ns: int, batch_ids: Collection[int]) -> Iterator[list[Span]]:
        """What was answered between start and end, and these batches in any case; some hundred requests at a time.

        Each is told once, and forgotten then.
        """
        chunk: list[Span] = []
        while self._kept:
            batch = self._kept.popleft()
            if start_ns <= batch.answered_ns <= end_ns or batch.batch_id in batch_ids:
                chunk += self._spell(batch)
            if len(chunk) >= _CHUNK_ROWS:
                yield chunk
                chunk = []
        yield chunk

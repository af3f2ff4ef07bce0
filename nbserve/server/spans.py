"""The last few thousand requests with the time each stage took. Pure; server process."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import accumulate, islice
from typing import NamedTuple, Protocol, TypedDict

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

_SUMMARY_ROWS = 1000
_CHUNK_ROWS = 500
MOST_COLLECTED = 200_000


class Quantiles(TypedDict):
    p50: float
    p95: float
    p99: float


class Summary(TypedDict):
    """What happened within a window: counts, requests per second, and quantiles by stage in ms."""

    requests: int
    batches: int
    throughput: float
    mean_batch_size: float
    stages: dict[str, Quantiles]


class SentBatch(Protocol):
    """A batch as the channel kept it: `started_ns` is when the worker was free for it, after the batch before it."""

    batch_id: int
    tickets: list[Ticket]
    sent_ns: int
    started_ns: int


class _Batch(NamedTuple):
    """One answered batch; `rows` holds all request ids, then all received, then all queued times."""

    batch_id: int
    worker: int
    held_since_ns: int
    dispatched_ns: int
    started_ns: int
    stamps: Stamps
    sent_ns: int
    rows: array[int]

    @property
    def size(self) -> int:
        return len(self.rows) // 3

    @property
    def answered_ns(self) -> int:
        """When the worker was done with it."""
        return max(self.stamps) or self.sent_ns

    def stages(self) -> Iterator[tuple[int, tuple[float, ...]]]:
        """Request id and durations, in the order of STAGES, of each row."""
        free_ns = min(max(self.dispatched_ns, self.started_ns), max(self.stamps.taken_ns, self.dispatched_ns))
        # A batch that failed early leaves stamps at 0: its later stages took no time.
        *marks, encoded_ns, sent_ns = accumulate((free_ns, *self.stamps, self.sent_ns), max)
        shared = [(end - start) / 1e6 for start, end in zip(marks, [*marks[1:], encoded_ns], strict=True)]
        respond_ms = (sent_ns - encoded_ns) / 1e6
        size = self.size
        for request_id, received_ns, queued_ns in zip(
            self.rows[:size], self.rows[size : 2 * size], self.rows[2 * size :], strict=True
        ):
            received_ns = received_ns or queued_ns
            held_ns = max(0, self.dispatched_ns - max(queued_ns, self.held_since_ns)) if self.held_since_ns else 0
            queue_ms = (free_ns - queued_ns - held_ns) / 1e6
            received_ms = (queued_ns - received_ns) / 1e6
            total_ms = (sent_ns - received_ns) / 1e6
            yield request_id, (received_ms, queue_ms, held_ns / 1e6, *shared, respond_ms, total_ms)


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
    ) -> None:
        """Keep an answered batch; `held_since_ns` is what `Batcher.held_since_ns` said when it was taken.

        `source` is who answered it: versions of an endpoint share a store, and may each have a worker 0.
        """
        tickets = batch.tickets
        rows = array("q", [t.request_id for t in tickets])
        rows.extend([t.received_ns for t in tickets])
        rows.extend([t.queued_ns for t in tickets])
        kept = _Batch(batch.batch_id, worker, held_since_ns, batch.sent_ns, batch.started_ns, stamps, sent_ns, rows)
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

    def summary(self, window_s: float, now_ns: int) -> Summary:
        """Rates and quantiles of what was answered in the last `window_s`, as far back as it is kept."""
        since_ns = now_ns - int(window_s * 1e9)
        batches = [batch for batch in self._batches if batch.sent_ns > since_ns]
        count = sum(batch.size for batch in batches)
        # Ten milliseconds of arithmetic would be seen in every client's p99: a thousand rows are enough for quantiles.
        sample = batches[:: max(1, count // _SUMMARY_ROWS)]
        rows = [stages for batch in sample for _, stages in batch.stages()]
        columns = zip(*rows, strict=True) if rows else ([] for _ in STAGES)
        return Summary(
            requests=count,
            batches=len(batches),
            throughput=count / self._covered_s(batches, window_s, now_ns),
            mean_batch_size=count / len(batches) if batches else 0.0,
            stages={stage: _quantiles(sorted(column)) for stage, column in zip(STAGES, columns, strict=True)},
        )

    def _covered_s(self, batches: list[_Batch], window_s: float, now_ns: int) -> float:
        """The part of the window we still know: older batches may have been dropped."""
        if not batches or len(batches) < len(self._batches) or self._rows < self._capacity // 2:
            return window_s
        return min(window_s, max(1e-3, (now_ns - batches[0].sent_ns) / 1e9))

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


def _quantiles(ordered: Sequence[float]) -> Quantiles:
    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0

    return Quantiles(p50=at(0.5), p95=at(0.95), p99=at(0.99))

"""What is counted in a replica goes to Ray, which shows it to Prometheus as `ray_NAME`. Runs in Ray's replica."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from ray.serve import metrics as ray_metrics

from nbserve.server.metrics import SIZE_BOUNDS, STAGES, TIME_BOUNDS_NS
from nbserve.server.ticket import Ticket
from nbserve.wire import Stamps
from nbserve.worker.metrics import DEFAULT_BUCKETS, Histogram, News, UserMetrics

logger = logging.getLogger("ray.serve")
_TIME_BOUNDS_S = [bound / 1e9 for bound in TIME_BOUNDS_NS]


class RawHistogram(Histogram):
    """Hands the values on as they are: Ray counts them into buckets itself."""

    def __init__(self, name: str, help: str, news: News, buckets: Sequence[float]) -> None:
        super().__init__(name, help, news, buckets)
        self._values: list[float] = []

    def observe(self, value: float) -> None:
        with self._news:
            self._values.append(float(value))

    def take_change(self) -> dict[str, Any] | None:
        values, self._values = self._values, []
        return {"help": self.help, "buckets": self.buckets, "values": values} if values else None


class HandlerMetrics(UserMetrics):
    """`context.metrics` in a replica."""

    def histogram(self, name: str, help: str = "", buckets: Sequence[float] = ()) -> Histogram:
        return self._get(RawHistogram, name, help, buckets or DEFAULT_BUCKETS)


class HandlerReport:
    """Takes what a handler counted to Ray. What Ray refuses is logged once and left out, never fatal."""

    def __init__(self, endpoint: str, counted: HandlerMetrics) -> None:
        self._tags = {"endpoint": endpoint}
        self._counted = counted
        self._made: dict[str, Any] = {}
        self._refused: set[str] = set()

    def send(self) -> None:
        if not self._counted.has_news:
            return
        changes = self._counted.take_changes() or {}
        for section, send in (("counters", self._count), ("gauges", self._set), ("histograms", self._observe)):
            for name, change in changes.get(section, {}).items():
                try:
                    send(name, change)
                except (TypeError, ValueError) as error:
                    self._complain(name, error)

    def _count(self, name: str, change: Mapping[str, Any]) -> None:
        self._find(ray_metrics.Counter, name.removesuffix("_total"), change).inc(change["delta"], self._tags)

    def _set(self, name: str, change: Mapping[str, Any]) -> None:
        self._find(ray_metrics.Gauge, name, change).set(change["value"], self._tags)

    def _observe(self, name: str, change: Mapping[str, Any]) -> None:
        # Ray takes no bucket below zero.
        bounds = [bound for bound in change["buckets"] if bound > 0]
        histogram = self._find(ray_metrics.Histogram, name, change, boundaries=bounds)
        for value in change["values"]:
            histogram.observe(value, self._tags)

    def _find(self, kind: type, name: str, change: Mapping[str, Any], **details: Any) -> Any:
        if name not in self._made:
            text = change["help"] or f"{name}, set by the handler."
            self._made[name] = kind(name, description=text, tag_keys=("endpoint",), **details)
        return self._made[name]

    def _complain(self, name: str, error: Exception) -> None:
        if name not in self._refused:
            self._refused.add(name)
            logger.warning("metric %r is left out: %s", name, error)


class BatchReport:
    """nbserve's own series, under their names: see `server/metrics.py`, which keeps them where no Ray is."""

    def __init__(self, endpoint: str) -> None:
        self._tags = {"endpoint": endpoint}
        self._requests = ray_metrics.Counter(
            "nbserve_requests", description="Answered requests by HTTP status.", tag_keys=("endpoint", "status")
        )
        self._latency = _times(
            "nbserve_request_latency_seconds", "From a request's arrival in its replica to its answer."
        )
        self._queue = _times("nbserve_queue_seconds", "From a request's arrival in its replica to its batch.")
        self._stage = _times("nbserve_stage_seconds", "Time of each stage of a batch.", "stage")
        self._size = ray_metrics.Histogram(
            "nbserve_batch_size",
            description="Requests per batch.",
            boundaries=list(map(float, SIZE_BOUNDS)),
            tag_keys=("endpoint",),
        )

    def count(self, status: int) -> None:
        """A request was answered."""
        self._requests.inc(1, {**self._tags, "status": str(status)})

    def observe_batch(self, tickets: Sequence[Ticket], began_ns: int, stamps: Stamps, ended_ns: int) -> None:
        self._size.observe(len(tickets), self._tags)
        for ticket in tickets:
            self._queue.observe((began_ns - ticket.queued_ns) / 1e9, self._tags)
            self._latency.observe((ended_ns - ticket.received_ns) / 1e9, self._tags)
        edges = list(accumulate((began_ns, *stamps, ended_ns), max))
        for stage, start_ns, end_ns in zip(STAGES, edges, edges[1:], strict=False):
            self._stage.observe((end_ns - start_ns) / 1e9, {**self._tags, "stage": stage})


def _times(name: str, text: str, *labels: str) -> Any:
    return ray_metrics.Histogram(name, description=text, boundaries=_TIME_BOUNDS_S, tag_keys=("endpoint", *labels))

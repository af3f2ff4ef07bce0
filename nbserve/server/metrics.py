"""What Prometheus scrapes. Once per batch plain numbers grow; families are built only at a scrape. Server process."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Protocol

import psutil
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from nbserve.server.ticket import Ticket
from nbserve.server.user_metrics import UserMetrics
from nbserve.server.worker_state import WorkerState
from nbserve.wire import Stamps

_MS = 1_000_000
_TIME_BOUNDS_MS = (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 125, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000)
TIME_BOUNDS_NS = tuple(int(ms * _MS) for ms in _TIME_BOUNDS_MS)
SIZE_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
STAGES = ("ipc", "preprocess", "inference", "postprocess", "encode", "respond")


class WorkerView(Protocol):
    """What a scrape reads of a worker."""

    @property
    def index(self) -> int: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def state(self) -> Any: ...
    @property
    def restarts(self) -> int: ...


class EndpointView(Protocol):
    """What a scrape reads of an endpoint."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str | None: ...
    @property
    def queued(self) -> int: ...
    @property
    def workers(self) -> Sequence[WorkerView]: ...


class Histogram:
    """Counts by bucket; `bounds` are upper ends, the last bucket is open."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[int]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0

    @classmethod
    def of(cls, counted: Mapping[int, int], bounds: Sequence[int]) -> Histogram:
        """Of values that were counted one by one."""
        histogram = cls(bounds)
        for value, count in counted.items():
            histogram.observe(value, count)
        return histogram

    def observe(self, value: int, count: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += count
        self.sum += value * count

    def observe_all(self, values: list[int]) -> None:
        """The rows of a batch mostly fall into one bucket: then it costs as much as one."""
        self.sum += sum(values)
        lowest = bisect_left(self.bounds, min(values))
        if lowest == len(self.bounds) or max(values) <= self.bounds[lowest]:
            self.counts[lowest] += len(values)
        else:
            for value in values:
                self.counts[bisect_left(self.bounds, value, lowest)] += 1

    def buckets(self, unit: float) -> list[tuple[str, float]]:
        """Cumulated, as Prometheus wants them; a bound is divided by `unit`."""
        names = [*(repr(bound / unit) for bound in self.bounds), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))


class EndpointMetrics:
    """The numbers of one endpoint; `observe_batch` is all that the request path pays."""

    def __init__(self, name: str, user_metrics: UserMetrics) -> None:
        self.name = name
        self.version: str | None = None
        self.statuses: Counter[int] = Counter()
        self.latency = Histogram(TIME_BOUNDS_NS)
        self.queue = Histogram(TIME_BOUNDS_NS)
        self.batch_sizes: Counter[int] = Counter()
        self.stages = {stage: Histogram(TIME_BOUNDS_NS) for stage in STAGES}
        self._user_metrics = user_metrics

    def set_version(self, version: str) -> None:
        self.version = version

    def requests(self) -> dict[int, int]:
        """Answered requests by status, refused ones included."""
        return dict(self.statuses)

    def count_refused(self, status: int) -> None:
        """A request was answered without reaching a worker's results."""
        self.statuses[status] += 1

    def observe_batch(
        self, tickets: Sequence[Ticket], dispatched_ns: int, statuses: Sequence[int], stamps: Stamps, sent_ns: int
    ) -> None:
        """A batch was answered; stage times count once per batch, latency and queue time once per request."""
        self.statuses.update(statuses)
        self.batch_sizes[len(tickets)] += 1
        self.latency.observe_all([sent_ns - (ticket.received_ns or ticket.queued_ns) for ticket in tickets])
        self.queue.observe_all([dispatched_ns - ticket.queued_ns for ticket in tickets])
        edges = list(accumulate((dispatched_ns, *stamps, sent_ns), max))
        for stage, start_ns, end_ns in zip(self.stages.values(), edges, edges[1:], strict=False):
            stage.observe(end_ns - start_ns)

    def observe_user_metrics(self, worker: int, event: dict[str, Any], pid: int | None = None) -> None:
        self._user_metrics.observe(self.name, worker, event, pid)

    def forget_worker(self, pid: int) -> None:
        """This process ended: what its gauges said holds no more."""
        self._user_metrics.forget(pid)


class Metrics:
    """Everything at /metrics. `endpoints` and `open_connections` are asked at each scrape."""

    def __init__(
        self, open_connections: Callable[[], int], endpoints: Callable[[], Iterable[EndpointView]] = tuple
    ) -> None:
        self._open_connections = open_connections
        self._views = endpoints
        self._endpoints: dict[str, EndpointMetrics] = {}
        self._user_metrics = UserMetrics()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def endpoint(self, name: str) -> EndpointMetrics:
        """The numbers of an endpoint; they go on when a name is deployed again."""
        return self._endpoints.setdefault(name, EndpointMetrics(name, self._user_metrics))

    def render(self) -> tuple[bytes, str]:
        """The body and content type of an answer to a scrape."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def collect(self) -> Iterator[Metric]:
        """Called by the registry at each scrape."""
        yield from self._request_families()
        yield from self._histogram_families()
        yield from _live_families(list(self._views()))
        yield GaugeMetricFamily(
            "nbserve_open_connections", "Client connections of the inference API.", value=self._open_connections()
        )
        yield from _server_families()
        yield from self._user_metrics.families()

    def _request_families(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "nbserve_requests", "Answered requests by HTTP status.", labels=["endpoint", "status"]
        )
        info = GaugeMetricFamily(
            "nbserve_endpoint_info", "1 for the version that is served.", labels=["endpoint", "version"]
        )
        for name, endpoint in self._endpoints.items():
            for status, count in sorted(endpoint.statuses.items()):
                requests.add_metric([name, str(status)], count)
            if endpoint.version is not None:
                info.add_metric([name, endpoint.version], 1)
        return iter((requests, info))

    def _histogram_families(self) -> Iterator[Metric]:
        latency = _family("nbserve_request_latency_seconds", "From the first byte of a request to its answer.")
        queue = _family("nbserve_queue_seconds", "From queueing a request to sending it to a worker.")
        size = _family("nbserve_batch_size", "Requests per batch.")
        stage = _family("nbserve_stage_seconds", "Time of each stage of a batch.", "stage")
        for name, endpoint in self._endpoints.items():
            _add(latency, [name], endpoint.latency, 1e9)
            _add(queue, [name], endpoint.queue, 1e9)
            _add(size, [name], Histogram.of(endpoint.batch_sizes, SIZE_BOUNDS), 1)
            for stage_name, histogram in endpoint.stages.items():
                _add(stage, [name, stage_name], histogram, 1e9)
        return iter((latency, queue, size, stage))


def _family(name: str, help_text: str, *labels: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(name, help_text, labels=["endpoint", *labels])


def _add(family: HistogramMetricFamily, labels: list[str], histogram: Histogram, unit: float) -> None:
    family.add_metric(labels, histogram.buckets(unit), histogram.sum / unit)


def _live_families(views: list[EndpointView]) -> Iterator[Metric]:
    queue = GaugeMetricFamily("nbserve_queue_length", "Requests that wait for a worker.", labels=["endpoint"])
    workers = GaugeMetricFamily("nbserve_workers", "Workers by state.", labels=["endpoint", "state"])
    restarts = CounterMetricFamily("nbserve_worker_restarts", "Restarted workers.", labels=["endpoint"])
    rss = GaugeMetricFamily("nbserve_worker_rss_bytes", "Resident memory.", labels=["endpoint", "worker"])
    cpu = CounterMetricFamily("nbserve_worker_cpu_seconds", "CPU time used.", labels=["endpoint", "worker"])
    for view in views:
        queue.add_metric([view.name], view.queued)
        restarts.add_metric([view.name], sum(worker.restarts for worker in view.workers))
        states = Counter(_state_name(worker) for worker in view.workers)
        for state in WorkerState:
            # None in a state is a 0, not a gap: an alert that waits for no ready worker has something to compare.
            workers.add_metric([view.name, state.value], states[state.value])
        for worker in view.workers:
            if (usage := _usage(worker.pid)) is not None:
                rss.add_metric([view.name, str(worker.index)], usage[0])
                cpu.add_metric([view.name, str(worker.index)], usage[1])
    return iter((queue, workers, restarts, rss, cpu))


def _server_families() -> Iterator[Metric]:
    if (usage := _usage(os.getpid())) is not None:
        yield GaugeMetricFamily("nbserve_server_rss_bytes", "Resident memory of the server process.", value=usage[0])
        yield CounterMetricFamily("nbserve_server_cpu_seconds", "CPU time used by the server process.", value=usage[1])


def _state_name(worker: WorkerView) -> str:
    return str(getattr(worker.state, "value", worker.state))


def _usage(pid: int | None) -> tuple[int, float] | None:
    """(resident bytes, CPU seconds) of a process, None when it is gone."""
    if pid is None:
        return None
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return process.memory_info().rss, times.user + times.system
    except psutil.Error:
        return None

"""Metrics as a Prometheus server reads them."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from nbserve.server.logbook import logger
from nbserve.server.metrics import SIZE_BOUNDS, Histogram, Metrics
from nbserve.server.ticket import Ticket
from nbserve.wire import Stamps

MS = 1_000_000


@dataclass
class WorkerNow:
    index: int
    pid: int | None
    state: str = "READY"
    restarts: int = 0


@dataclass
class EndpointNow:
    name: str
    version: str | None = "3f9c2a"
    queued: int = 0
    workers: list[WorkerNow] = field(default_factory=list)


def scraped(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by name and labels; a sample that appears twice fails."""
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in samples
            samples[key] = sample.value
    return samples


def steady(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What does not change by itself."""
    return {key: number for key, number in scraped(metrics).items() if not key[0].startswith("nbserve_server_")}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return scraped(metrics).get((name, frozenset(labels.items())))


def answered(rows: int = 3) -> list[Ticket]:
    """Row i waited 1 ms and was received 1+3*i ms before it was sent to a worker at 1 s."""
    tickets = [Ticket(i, b"", b"", 999 * MS - 3 * i * MS) for i in range(rows)]
    for ticket in tickets:
        ticket.queued_ns = 999 * MS
    return tickets


def test_a_batch_is_counted_by_status_latency_queue_size_and_stage() -> None:
    metrics = Metrics(lambda: 7)
    endpoint = metrics.endpoint("digits")
    stamps = Stamps(*(ms * MS for ms in (1001, 1003, 1010, 1011, 1012)))
    endpoint.observe_batch(answered(), 1000 * MS, [200, 200, 500], stamps, 1013 * MS)
    endpoint.count_refused(503)
    assert endpoint.requests() == {200: 2, 500: 1, 503: 1}
    assert value(metrics, "nbserve_requests_total", endpoint="digits", status="200") == 2
    assert value(metrics, "nbserve_request_latency_seconds_count", endpoint="digits") == 3
    assert value(metrics, "nbserve_request_latency_seconds_sum", endpoint="digits") == pytest.approx(0.051)
    assert value(metrics, "nbserve_request_latency_seconds_bucket", endpoint="digits", le="0.016") == 1
    assert value(metrics, "nbserve_request_latency_seconds_bucket", endpoint="digits", le="0.032") == 3
    assert value(metrics, "nbserve_queue_seconds_bucket", endpoint="digits", le="0.001") == 3
    assert value(metrics, "nbserve_batch_size_bucket", endpoint="digits", le="2.0") == 0
    assert value(metrics, "nbserve_batch_size_bucket", endpoint="digits", le="4.0") == 1
    inference = value(metrics, "nbserve_stage_seconds_sum", endpoint="digits", stage="inference")
    assert inference == pytest.approx(0.007)
    assert value(metrics, "nbserve_open_connections") == 7


def test_observing_all_is_observing_each() -> None:
    values = [1, 2, 3, 500, 513, 10**6]
    one, all_at_once, one_bucket = Histogram(SIZE_BOUNDS), Histogram(SIZE_BOUNDS), Histogram(SIZE_BOUNDS)
    for number in values:
        one.observe(number)
    all_at_once.observe_all(values)
    one_bucket.observe_all([5, 8, 6])
    assert (one.counts, one.sum) == (all_at_once.counts, all_at_once.sum)
    assert one_bucket.counts[3] == 3


def test_a_batch_whose_worker_gave_no_stamps_counts_without_negative_times() -> None:
    metrics = Metrics(lambda: 0)
    metrics.endpoint("digits").observe_batch(answered(1), 1000 * MS, [500], Stamps(), 1013 * MS)
    sums = [v for (name, _), v in scraped(metrics).items() if name == "nbserve_stage_seconds_sum"]
    assert sorted(sums) == [0, 0, 0, 0, 0, pytest.approx(0.013)]


def test_live_state_is_read_at_each_scrape() -> None:
    view = EndpointNow("digits", queued=4, workers=[WorkerNow(0, os.getpid(), restarts=2), WorkerNow(1, None, "DEAD")])
    metrics = Metrics(lambda: 0, lambda: [view])
    metrics.endpoint("digits").set_version("3f9c2a")
    assert value(metrics, "nbserve_queue_length", endpoint="digits") == 4
    assert value(metrics, "nbserve_workers", endpoint="digits", state="DEAD") == 1
    assert value(metrics, "nbserve_workers", endpoint="digits", state="HELD") == 0
    assert value(metrics, "nbserve_worker_restarts_total", endpoint="digits") == 2
    assert value(metrics, "nbserve_endpoint_info", endpoint="digits", version="3f9c2a") == 1
    rss = value(metrics, "nbserve_worker_rss_bytes", endpoint="digits", worker="0")
    assert rss is not None
    assert rss > 1_000_000
    assert value(metrics, "nbserve_worker_cpu_seconds_total", endpoint="digits", worker="0") is not None
    view.queued = 0
    assert value(metrics, "nbserve_queue_length", endpoint="digits") == 0


def test_the_server_counts_itself() -> None:
    metrics = Metrics(lambda: 0)
    rss, cpu_s = value(metrics, "nbserve_server_rss_bytes"), value(metrics, "nbserve_server_cpu_seconds_total")
    assert rss is not None
    assert rss > 1_000_000
    assert cpu_s is not None
    assert cpu_s > 0


def test_a_worker_that_is_gone_does_not_break_the_scrape() -> None:
    metrics = Metrics(lambda: 0, lambda: [EndpointNow("digits", workers=[WorkerNow(0, 2**22 + 1)])])
    assert value(metrics, "nbserve_workers", endpoint="digits", state="READY") == 1
    assert value(metrics, "nbserve_worker_rss_bytes", endpoint="digits", worker="0") is None


def test_counters_go_on_when_a_name_is_deployed_again() -> None:
    metrics = Metrics(lambda: 0)
    metrics.endpoint("digits").count_refused(503)
    assert metrics.endpoint("digits").requests() == {503: 1}


def histogram(counts: list[int], buckets: tuple[float, ...] = (0.1, 1.0)) -> dict[str, Any]:
    return {"histograms": {"score": {"help": "How sure.", "buckets": buckets, "counts": counts, "sum": 1.5}}}


def test_gauges_of_a_process_go_when_it_ended_unless_another_has_set_them() -> None:
    metrics = Metrics(lambda: 0)
    endpoint = metrics.endpoint("digits")

    def heat(worker: int, value: float, pid: int) -> None:
        endpoint.observe_user_metrics(worker, {"gauges": {"heat": {"help": "Now.", "value": value}}}, pid)

    heat(0, 20, pid=11)
    heat(1, 30, pid=12)
    endpoint.observe_user_metrics(1, {"counters": {"cats": {"help": "Seen.", "delta": 2}}}, 12)
    endpoint.forget_worker(12)
    assert value(metrics, "heat", endpoint="digits", worker="0") == 20
    assert value(metrics, "heat", endpoint="digits", worker="1") is None
    assert value(metrics, "cats_total", endpoint="digits") == 2
    heat(0, 25, pid=13)
    endpoint.forget_worker(11)
    assert value(metrics, "heat", endpoint="digits", worker="0") == 25


def test_the_handlers_own_metrics_add_up_over_workers() -> None:
    metrics = Metrics(lambda: 0)
    endpoint = metrics.endpoint("digits")
    for worker in (0, 1):
        endpoint.observe_user_metrics(worker, {"counters": {"cats_total": {"help": "Seen.", "delta": 2}}})
        endpoint.observe_user_metrics(worker, {"gauges": {"heat": {"help": "Now.", "value": worker - 1.0}}})
        endpoint.observe_user_metrics(worker, histogram([1, 0, 2]))
    assert value(metrics, "cats_total", endpoint="digits") == 4
    assert value(metrics, "heat", endpoint="digits", worker="0") == -1
    assert value(metrics, "score_bucket", endpoint="digits", le="1.0") == 2
    assert value(metrics, "score_bucket", endpoint="digits", le="+Inf") == 6
    assert value(metrics, "score_sum", endpoint="digits") == 3


@pytest.mark.parametrize(
    "event",
    [
        {"gauges": {"cats": {"help": "", "value": 1}}},
        {"gauges": {"cats_total": {"help": "", "value": 1}}},
        {"counters": {"cats": {"help": "", "delta": -1}}},
        {"counters": {"cats": {"help": "", "delta": float("nan")}}},
        {"counters": {"cats": {"help": ""}}},
        {"counters": {"nbserve_requests": {"help": "", "delta": 1}}},
        {"counters": {"so bad": {"help": "", "delta": 1}}},
        {"gauges": {"score_count": {"help": "", "value": 1}}},
        histogram([1, 2]),
        histogram([1, 2, 3, 4], (0.1, 0.5, 1.0)),
    ],
    ids=str,
)
def test_what_does_not_fit_is_logged_once_and_left_out(event: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics(lambda: 0)
    endpoint = metrics.endpoint("digits")
    endpoint.observe_user_metrics(0, {"counters": {"cats": {"help": "", "delta": 1}}})
    endpoint.observe_user_metrics(0, histogram([1, 0, 0]))
    before = steady(metrics)
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.WARNING, logger=logger.name):
            endpoint.observe_user_metrics(0, event)
            endpoint.observe_user_metrics(0, event)
    finally:
        logger.removeHandler(caplog.handler)
    assert steady(metrics) == before
    assert len({record.getMessage() for record in caplog.records}) == 1
    assert "is left out" in caplog.text

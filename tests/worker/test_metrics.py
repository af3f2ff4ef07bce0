"""A handler's own metrics: only what changed is sent, and only once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from nbserve.worker.metrics import UserMetrics


@pytest.fixture
def metrics() -> UserMetrics:
    return UserMetrics()


def test_nothing_is_sent_when_nothing_changed(metrics: UserMetrics) -> None:
    assert metrics.take_changes() is None
    counter = metrics.counter("rows")
    assert (metrics.has_news, metrics.take_changes()) == (False, None)
    counter.inc()
    assert metrics.has_news
    assert metrics.take_changes() is not None
    assert (metrics.has_news, metrics.take_changes()) == (False, None)


def test_changes_are_since_the_last_time(metrics: UserMetrics) -> None:
    sizes = metrics.histogram("sizes", "Sizes", buckets=[10, 1])
    for value in (0.5, 1, 5, 100):
        sizes.observe(value)
    metrics.gauge("temperature").set(20)
    metrics.gauge("temperature").set(21)
    changes: Any = metrics.take_changes()
    assert changes["event"] == "metrics"
    assert changes["counters"] == {}
    assert changes["gauges"] == {"temperature": {"help": "", "value": 21.0}}
    assert changes["histograms"]["sizes"] == {
        "help": "Sizes",
        "buckets": [1.0, 10.0],
        "counts": [2, 1, 1],
        "sum": 106.5,
    }
    sizes.observe(2)
    changes = metrics.take_changes()
    assert changes["histograms"]["sizes"]["counts"] == [0, 1, 0]
    assert changes["gauges"] == {}


def test_a_name_is_one_metric_of_one_kind(metrics: UserMetrics) -> None:
    assert metrics.counter("rows") is metrics.counter("rows")
    with pytest.raises(ValueError, match="the metric rows is a counter already"):
        metrics.gauge("rows")


@pytest.mark.parametrize("name", ["", "two words", "1st", "a-b"])
def test_a_name_prometheus_refuses_is_refused_at_once(metrics: UserMetrics, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a metric"):
        metrics.counter(name)


def test_a_counter_cannot_go_down(metrics: UserMetrics) -> None:
    with pytest.raises(ValueError, match="cannot go down"):
        metrics.counter("rows").inc(-1)


@pytest.mark.parametrize(
    "use",
    [
        lambda metrics: metrics.counter("a").inc("1x"),
        lambda metrics: metrics.gauge("a").set(None),
        lambda metrics: metrics.histogram("a").observe("x"),
    ],
)
def test_what_is_no_number_is_refused_and_leaves_nothing(metrics: UserMetrics, use: Callable[[Any], None]) -> None:
    with pytest.raises((TypeError, ValueError)):
        use(metrics)
    assert metrics.take_changes() is None


def test_threads_lose_no_count(metrics: UserMetrics) -> None:
    def count() -> None:
        for _ in range(2000):
            metrics.counter("rows").inc()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    total = 0.0
    while any(thread.is_alive() for thread in threads) or metrics.has_news:
        changes: Any = metrics.take_changes()
        total += changes["counters"]["rows"]["delta"] if changes else 0
    assert total == 8000


def test_what_is_counted_in_a_rehearsal_does_not_count() -> None:
    metrics = UserMetrics()
    counter, gauge, histogram = metrics.counter("rows"), metrics.gauge("size"), metrics.histogram("ms", buckets=[1])
    counter.inc(2)
    histogram.observe(0.5)
    with metrics.kept():
        counter.inc(5)
        gauge.set(3)
        histogram.observe(7)
        metrics.counter("new").inc()
    changes = metrics.take_changes()
    assert changes is not None
    assert changes["counters"] == {"rows": {"help": "", "delta": 2.0}}
    assert changes["gauges"] == {}
    assert changes["histograms"]["ms"]["counts"] == [1, 0]

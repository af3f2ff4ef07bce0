"""A handler's own metrics: counted in the worker, sent to the server as changes."""

from __future__ import annotations

import re
import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*").fullmatch
DEFAULT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class News:
    """Entered by whoever changes a metric, in whatever thread; remembers that there is something to send."""

    def __init__(self) -> None:
        self.is_there = False
        self.lock = threading.Lock()

    def __enter__(self) -> None:
        self.lock.acquire()
        self.is_there = True

    def __exit__(self, *_: object) -> None:
        self.lock.release()


class Metric:
    """One metric; `take_change` gives what the server does not know yet, None when it knows all."""

    section = ""

    def __init__(self, name: str, help: str, news: News) -> None:
        self.name = name
        self.help = help
        self._news = news

    def take_change(self) -> dict[str, Any] | None:
        raise NotImplementedError


class Counter(Metric):
    """Only goes up."""

    section = "counters"
    _delta = 0.0

    def inc(self, amount: float = 1.0) -> None:
        if amount < 0:
            raise ValueError(f"the counter {self.name} cannot go down (by {amount}); use a gauge")
        with self._news:
            self._delta += float(amount)

    def take_change(self) -> dict[str, Any] | None:
        delta, self._delta = self._delta, 0.0
        return {"help": self.help, "delta": delta} if delta else None


class Gauge(Metric):
    """Says how things stand now."""

    section = "gauges"
    _value: float | None = None

    def set(self, value: float) -> None:
        with self._news:
            self._value = float(value)

    def take_change(self) -> dict[str, Any] | None:
        value, self._value = self._value, None
        return None if value is None else {"help": self.help, "value": value}


class Histogram(Metric):
    """Counts values by bucket; a bucket's bound belongs to it, the last bucket has none."""

    section = "histograms"

    def __init__(self, name: str, help: str, news: News, buckets: Sequence[float]) -> None:
        super().__init__(name, help, news)
        self.buckets = sorted(float(bound) for bound in buckets)
        self._counts = [0] * (len(self.buckets) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        value = float(value)
        with self._news:
            self._counts[bisect_left(self.buckets, value)] += 1
            self._sum += value

    def take_change(self) -> dict[str, Any] | None:
        if not any(self._counts):
            return None
        change = {"help": self.help, "buckets": self.buckets, "counts": self._counts, "sum": self._sum}
        self._counts, self._sum = [0] * len(self._counts), 0.0
        return change


Kind = TypeVar("Kind", bound=Metric)


class UserMetrics:
    """`context.metrics`: gives the metric of a name, the same one each time it is asked."""

    def __init__(self) -> None:
        self._metrics: dict[str, Metric] = {}
        self._news = News()

    @property
    def has_news(self) -> bool:
        return self._news.is_there

    def counter(self, name: str, help: str = "") -> Counter:
        return self._get(Counter, name, help)

    def gauge(self, name: str, help: str = "") -> Gauge:
        return self._get(Gauge, name, help)

    def histogram(self, name: str, help: str = "", buckets: Sequence[float] = ()) -> Histogram:
        return self._get(Histogram, name, help, buckets or DEFAULT_BUCKETS)

    def take_changes(self) -> dict[str, Any] | None:
        """All that changed since the last call, as a `metrics` event; None when nothing did."""
        sections: dict[str, dict[str, Any]] = {"counters": {}, "gauges": {}, "histograms": {}}
        with self._news.lock:
            self._news.is_there = False
            for metric in list(self._metrics.values()):
                if change := metric.take_change():
                    sections[metric.section][metric.name] = change
        return {"event": "metrics", **sections} if any(sections.values()) else None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """What is counted meanwhile does not count."""
        before = {metric: _copied(vars(metric)) for metric in self._metrics.values()}
        yield
        with self._news.lock:
            for metric in self._metrics.values():
                metric.take_change()
                vars(metric).update(before.get(metric, {}))

    def _get(self, kind: type[Kind], name: str, help: str, *details: Any) -> Kind:
        metric = self._metrics.get(name)
        if metric is None:
            if not _NAME(name):
                raise ValueError(f"{name!r} cannot name a metric: letters, digits and _ only, no digit first")
            metric = self._metrics.setdefault(name, kind(name, help, self._news, *details))
        if not isinstance(metric, kind):
            raise ValueError(f"the metric {name} is a {type(metric).__name__.lower()} already")
        return metric


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, list) else value for name, value in state.items()}

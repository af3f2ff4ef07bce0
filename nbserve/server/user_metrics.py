"""Metrics that handlers make themselves: their workers' reports, added up and checked. Server process."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from nbserve.server.logbook import logger

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_SUFFIXES = {"counter": ("", "_total", "_created"), "gauge": ("",), "histogram": ("", "_bucket", "_count", "_sum")}
_MOST = 500


class _Refused(ValueError):
    """A report that cannot be shown; the text says why."""


@dataclass
class _Sums:
    """A histogram of one endpoint."""

    counts: list[int]
    sum: float = 0.0


@dataclass
class _Series:
    """One metric name; values by (endpoint,) or (endpoint, worker), and for gauges the process that set them."""

    kind: str
    help: str
    buckets: tuple[float, ...] = ()
    values: dict[tuple[str, ...], float] = field(default_factory=dict)
    set_by: dict[tuple[str, ...], int | None] = field(default_factory=dict)
    sums: dict[str, _Sums] = field(default_factory=dict)


class UserMetrics:
    """The handlers' own metrics of all endpoints. What does not fit is logged once and left out, never fatal."""

    def __init__(self) -> None:
        self._series: dict[str, _Series] = {}
        self._taken: dict[str, str] = {}
        self._complained: set[str] = set()

    def observe(self, endpoint: str, worker: int, event: dict[str, Any], pid: int | None = None) -> None:
        """Take in one "metrics" event of a worker."""
        for kind in _SUFFIXES:
            for name, report in event.get(f"{kind}s", {}).items():
                try:
                    self._add(kind, name, report, endpoint, worker, pid)
                except (_Refused, KeyError, TypeError, ValueError) as error:
                    self._complain(name, endpoint, error)

    def forget(self, pid: int) -> None:
        """A worker's process ended: its gauges go, unless another process has set them since."""
        for series in self._series.values():
            for labels in [labels for labels, setter in series.set_by.items() if setter == pid]:
                del series.set_by[labels], series.values[labels]

    def families(self) -> Iterator[Metric]:
        return (_FAMILIES[series.kind](name, series) for name, series in self._series.items())

    def _add(self, kind: str, name: str, report: dict[str, Any], endpoint: str, worker: int, pid: int | None) -> None:
        buckets = tuple(float(bound) for bound in report.get("buckets", ()))
        series = self._find(kind, name, str(report.get("help", "")), buckets)
        if kind == "counter":
            delta = _at_least_0(report["delta"])
            series.values[endpoint,] = series.values.get((endpoint,), 0.0) + delta
        elif kind == "gauge":
            series.values[endpoint, str(worker)] = float(report["value"])
            series.set_by[endpoint, str(worker)] = pid
        else:
            _add_counts(series, endpoint, report["counts"], float(report["sum"]))

    def _find(self, kind: str, name: str, help_text: str, buckets: tuple[float, ...]) -> _Series:
        base = name.removesuffix("_total") if kind == "counter" else name
        series = self._series.get(base)
        if series is None:
            series = self._claim(kind, base, help_text, buckets)
        if series.kind != kind:
            raise _Refused(f"it is a {series.kind} already")
        if series.buckets != buckets:
            raise _Refused(f"its buckets are {list(series.buckets)} already")
        return series

    def _claim(self, kind: str, base: str, help_text: str, buckets: tuple[float, ...]) -> _Series:
        if not _NAME.fullmatch(base) or base.startswith(("nbserve_", "__")):
            raise _Refused("a name has letters, digits and underscores, and does not start with nbserve_")
        if len(self._series) >= _MOST:
            raise _Refused(f"there are {_MOST} names already")
        if list(buckets) != sorted(set(buckets)):
            raise _Refused("its buckets do not increase")
        samples = [base + suffix for suffix in _SUFFIXES[kind]]
        clashes = [self._taken[sample] for sample in samples if sample in self._taken]
        if clashes:
            raise _Refused(f"its samples would be named like those of {clashes[0]}")
        self._taken.update(dict.fromkeys(samples, base))
        self._series[base] = _Series(kind, help_text or f"{base}, set by the handler.", buckets)
        return self._series[base]

    def _complain(self, name: str, endpoint: str, error: Exception) -> None:
        if len(self._complained) < _MOST and name not in self._complained:
            self._complained.add(name)
            why = error if isinstance(error, _Refused) else f"its report is not understood ({error!r})"
            logger.warning("metric %r is left out: %s", name, why, extra={"endpoint": endpoint})


def _add_counts(series: _Series, endpoint: str, counts: Sequence[int], total: float) -> None:
    if len(counts) != len(series.buckets) + 1:
        raise _Refused(f"it has {len(counts)} counts for {len(series.buckets)} buckets and +Inf")
    sums = series.sums.setdefault(endpoint, _Sums([0] * len(counts)))
    sums.counts = [known + int(_at_least_0(new)) for known, new in zip(sums.counts, counts, strict=True)]
    sums.sum += total


def _at_least_0(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise _Refused(f"it cannot grow by {value!r}")
    return number


def _counter(name: str, series: _Series) -> Metric:
    return _with_values(CounterMetricFamily(name, series.help, labels=["endpoint"]), series)


def _gauge(name: str, series: _Series) -> Metric:
    return _with_values(GaugeMetricFamily(name, series.help, labels=["endpoint", "worker"]), series)


def _with_values(family: Any, series: _Series) -> Metric:
    for labels, value in series.values.items():
        family.add_metric(labels, value)
    known: Metric = family
    return known


def _histogram(name: str, series: _Series) -> Metric:
    family = HistogramMetricFamily(name, series.help, labels=["endpoint"])
    bounds = [*map(repr, series.buckets), "+Inf"]
    for endpoint, sums in series.sums.items():
        family.add_metric([endpoint], list(zip(bounds, accumulate(sums.counts), strict=True)), sums.sum)
    return family


_FAMILIES = {"counter": _counter, "gauge": _gauge, "histogram": _histogram}

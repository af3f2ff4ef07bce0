"""What the stream of an endpoint told so far: its newest status, and the samples of the last minutes. Kernel."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nbserve.verbs import Endpoint

# Two minutes at two samples a second.
MOST_SAMPLES = 240


@dataclass
class Live:
    """Feed it the lines of `Endpoint.stream`."""

    endpoint: dict[str, Any] = field(default_factory=dict)
    load: dict[str, Any] | None = None
    export: dict[str, Any] | None = None
    samples: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=MOST_SAMPLES))
    is_gone: bool = False

    @property
    def sample(self) -> dict[str, Any] | None:
        """The newest one."""
        return self.samples[-1] if self.samples else None

    def take(self, line: Mapping[str, Any]) -> None:
        if line["event"] == "begin":
            self.samples.clear()
            self.samples.extend(line["samples"])
        elif line["event"] == "stats":
            self.endpoint, self.load, self.export = line["endpoint"], line["load"], line.get("export")
            self.samples.append(line["sample"])
        elif line["event"] == "gone":
            self.is_gone = True

    def as_dict(self) -> dict[str, Any]:
        """What a panel shows before it follows by itself."""
        newest = {"endpoint": self.endpoint, "sample": self.sample, "load": self.load, "export": self.export}
        return {**newest, "samples": list(self.samples)}


def now(endpoint: Endpoint) -> Live:
    """What there is at this moment; raises NotFound when there is no such endpoint."""
    live = Live()
    with contextlib.closing(endpoint.stream()) as lines:
        for line in lines:
            live.take(line)
            if line["event"] != "begin":
                break
    return live


def words(sample: Mapping[str, Any] | None) -> str:
    """`120 answers/s, latency 3.1 / 4.2 / 6 ms (p50 / p95 / p99), 3 queued, batches of 4.2`"""
    if sample is None:
        return "nothing was measured yet"
    parts = [f"{figure(sample['throughput'])} answers/s", _latency(sample["latency_ms"]), f"{sample['queued']} queued"]
    if sample["batches"]:
        parts.append(f"batches of {figure(sample['mean_batch_size'])}")
    if sample["errors"]:
        parts.append(f"{sample['errors']:,} errors in {sample['window_s']:g} s")
    return ", ".join(parts)


def figure(value: float) -> str:
    """Three figures, without zeros that say nothing: 1,234  56.7  0.5  0"""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if abs(value) >= 10 else 2}f}".rstrip("0").rstrip(".")


def _latency(latency_ms: Mapping[str, float] | None) -> str:
    if latency_ms is None:
        return "no latency yet"
    quantiles = " / ".join(figure(latency_ms[name]) for name in ("p50", "p95", "p99"))
    return f"latency {quantiles} ms (p50 / p95 / p99)"

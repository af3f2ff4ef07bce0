"""What is measured, what came of it, and what is hoped for. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nbserve.config import EndpointConfig, Policy


@dataclass(frozen=True)
class Settings:
    """The settings that are searched; each of them can be changed while an endpoint runs."""

    workers: int = 1
    threads_per_worker: int = 0
    max_batch_size: int = 32
    policy: Policy = "adaptive"
    max_batch_delay_ms: float = 0.0

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Settings:
        """Those among an endpoint's settings; a delay that its policy does not use is left out."""
        found = EndpointConfig().changed({name: settings[name] for name in cls.__dataclass_fields__})
        delay_ms = found.max_batch_delay_ms if found.policy == "window" else 0.0
        return cls(found.workers, found.threads_per_worker, found.max_batch_size, found.policy, delay_ms)

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def threads(self, cores: int) -> int:
        """Threads of each worker, also where they are an equal share of the cores."""
        return self.threads_per_worker or max(1, cores // self.workers)

    def words(self) -> str:
        workers = f"{self.workers} worker{'s' * (self.workers > 1)}"
        threads = f" of {self.threads_per_worker} thread{'s' * (self.threads_per_worker > 1)}"
        policy = f"window {self.max_batch_delay_ms:g} ms" if self.policy == "window" else "adaptive"
        return f"{workers}{threads if self.threads_per_worker else ''}, batch {self.max_batch_size}, {policy}"


@dataclass(frozen=True)
class Goal:
    """The 99th percentile of latency that is to be kept, and the requests a second that must be served at least."""

    p99_ms: float
    rate: float | None = None


@dataclass(frozen=True)
class Load:
    """Clients that wait for their answers, or requests a second that come whatever happens."""

    clients: int = 1
    rate: float | None = None

    @property
    def size(self) -> float:
        return self.clients if self.rate is None else self.rate

    def words(self) -> str:
        if self.rate is None:
            return f"{self.clients} client{'s' * (self.clients > 1)}"
        return f"{self.rate:.4g} requests/s"


@dataclass(frozen=True)
class Ask:
    """What to measure next: `warm_s` of it do not count. `why` is told to people."""

    settings: Settings
    load: Load
    seconds: float
    warm_s: float
    why: str


@dataclass(frozen=True)
class Reading:
    """One measurement. `spent_s` includes what it took to set it up; `errors` are counted by what went wrong.

    It `is_behind` where requests came faster than they were answered, so that they would wait longer and longer.
    """

    throughput: float
    p50_ms: float
    p99_ms: float
    requests: int
    spent_s: float
    errors: Mapping[str, int] = field(default_factory=dict)
    is_behind: bool = False

    def keeps(self, p99_ms: float) -> bool:
        """Whether it answered all of its load well, and within that time."""
        return not self.errors and not self.is_behind and self.p99_ms <= p99_ms


@dataclass
class Point:
    """Settings under one load, and all readings of them."""

    settings: Settings
    load: Load
    readings: list[Reading] = field(default_factory=list)

    @property
    def throughput(self) -> float:
        """Good answers a second. A disturbance makes them fewer, never more: of two readings the higher one counts."""
        return statistics.median_high(reading.throughput for reading in self.readings)

    @property
    def p99_ms(self) -> float:
        """Of two readings the lower one counts."""
        return statistics.median_low(reading.p99_ms for reading in self.readings)

    @property
    def p50_ms(self) -> float:
        return statistics.median_low(reading.p50_ms for reading in self.readings)

    @property
    def latest(self) -> Reading:
        return self.readings[-1]

    @property
    def spread(self) -> float:
        """How far its readings are apart, as a share of the highest."""
        found = [reading.throughput for reading in self.readings]
        return (max(found) - min(found)) / max(*found, 1e-9)

    @property
    def errors(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for reading in self.readings:
            for what, count in reading.errors.items():
                found[what] = found.get(what, 0) + count
        return found

    def keeps(self, p99_ms: float) -> bool:
        """Whether it answers all of its load well, and within that time."""
        is_behind = all(reading.is_behind for reading in self.readings)
        return not self.errors and not is_behind and self.p99_ms <= p99_ms

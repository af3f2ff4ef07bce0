"""What is hoped for, who asks meanwhile, and for how long. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nbserve.errors import AutoTuneError
from nbserve.profiling.requests import Request
from nbserve.tune.points import Goal

# What people take for immediate.
DEFAULT_P99_MS = 100.0
DEFAULT_S, LEAST_S = 120.0, 10.0


@dataclass(frozen=True)
class TuneOptions:
    """How to tune, in the words of `Endpoint.tune`. Raises AutoTuneError for values that make no sense.

    `p99_ms` None is DEFAULT_P99_MS; `load` in requests a second, None: clients that wait for their answers; `requests`
    empty are the recorded ones.
    """

    p99_ms: float | None = None
    load: float | None = None
    seconds: float = DEFAULT_S
    apply: bool = False
    requests: Sequence[Request] = ()

    def __post_init__(self) -> None:
        for name, option in (("p99_ms", "--p99-ms"), ("load", "--load")):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise AutoTuneError(f"{option} is {value:g}; it takes more than 0")
        if not LEAST_S <= self.seconds < math.inf:
            raise AutoTuneError(f"--seconds is {self.seconds:g}; it takes {LEAST_S:g} or more: less finds nothing")

    @property
    def goal(self) -> Goal:
        return Goal(DEFAULT_P99_MS if self.p99_ms is None else self.p99_ms, self.load)

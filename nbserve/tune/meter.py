"""Measures settings under a load, on workers of its own beside an endpoint. Runs in the kernel or the terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from nbserve.errors import AutoTuneError, ConfigError, NotFound, ServerGone, StartError
from nbserve.load.job import Job, Outcome
from nbserve.profiling.ab import OnProgress, trial
from nbserve.profiling.generator import LoadGenerator
from nbserve.tune.points import Ask, Goal, Load, Reading, Settings

if TYPE_CHECKING:
    from nbserve.verbs import Endpoint

# New workers meet their first batches, and a batcher learns who comes back.
FRESH_S = 0.2
# Who overloads an open loop need not wait for all that it queued.
DRAIN_GOALS, LEAST_DRAIN_S = 3, 0.5
# What it leaves at the workers would be paid for by the next measurement: so long it is waited for.
SETTLE_S, SETTLE_STEP_S = 10.0, 0.02
# The last answer of an open loop may be so much later than usual, as a share of the time.
BEHIND = 0.05
# What a request asks for is no fault of the settings.
OVERLOAD = ("503", "no answer")


class Meter:
    """One trial, changed live from settings to settings, and the load on it."""

    def __init__(self, endpoint: Endpoint, url: str, settings: Settings, generator: LoadGenerator, goal: Goal) -> None:
        self._endpoint = endpoint
        self._url = url
        self._settings: Settings | None = settings
        self._generator = generator
        self._drain_s = max(LEAST_DRAIN_S, DRAIN_GOALS * goal.p99_ms / 1000)

    def measure(self, ask: Ask) -> Reading:
        """Change the settings if need be, warm up, and measure; workers that do not start are an error to count."""
        began_s = time.monotonic()
        warm_s = ask.warm_s + (0.0 if ask.settings == self._settings else FRESH_S)
        try:
            self.configure(ask.settings)
        except (StartError, ConfigError) as error:
            return _failed(f"no start: {error}", time.monotonic() - began_s)
        self._run(ask.load, warm_s)
        outcome = self._run(ask.load, ask.seconds)
        return reading(outcome, ask.load, ask.seconds, time.monotonic() - began_s)

    def block(self, load: Load, seconds: float) -> Reading:
        """Measure the settings that there are."""
        return reading(self._run(load, seconds), load, seconds, seconds)

    def status(self) -> dict[str, Any]:
        """The trial's part of the endpoint's status."""
        name = self._url.rpartition("/")[2]
        for found in self._endpoint.stats()["trials"]:
            if found["version"] == name:
                status: dict[str, Any] = found
                return status
        raise self._gone()

    def last_error(self) -> str | None:
        """What its handler raised last."""
        errors = [worker["last_error"] for worker in self.status()["workers"]]
        return next(filter(None, errors), None)

    def configure(self, settings: Settings) -> None:
        """Done when its workers are ready; raises StartError or ConfigError."""
        if settings == self._settings:
            return
        # What it has when this fails nobody knows.
        self._settings = None
        name = quote(self._url.rpartition("/")[2])
        try:
            self._endpoint.server.call("PATCH", f"{self._endpoint.path}/trials/{name}", settings.as_dict())
        except NotFound:
            raise self._gone() from None
        self._settings = settings

    def _run(self, load: Load, seconds: float) -> Outcome:
        job = Job(self._url, seconds, load.clients, load.rate, is_poisson=True, drain_s=self._drain_s)
        outcome = self._generator.run(job)
        if "404" in outcome["errors"] or any(error.startswith("no connection") for error in outcome["errors"]):
            raise self._gone()
        if load.rate is not None:
            self._settle()
        return outcome

    def _settle(self) -> None:
        """Until the workers have done what nobody waits for any more."""
        deadline_s = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline_s:
            status = self.status()
            if not status["queued"] and all(worker["state"] != "BUSY" for worker in status["workers"]):
                return
            time.sleep(SETTLE_STEP_S)

    def _gone(self) -> ServerGone:
        return ServerGone(f"{self._endpoint.name} was stopped or its server ended while it was tuned")


@contextmanager
def meter(
    endpoint: Endpoint, settings: Settings, generator: LoadGenerator, goal: Goal, on_progress: OnProgress
) -> Iterator[Meter]:
    """A trial with these settings while the block runs."""
    with trial(endpoint, settings.as_dict(), settings.words(), on_progress) as url:
        yield Meter(endpoint, url, settings, generator, goal)


def reading(outcome: Outcome, load: Load, seconds: float, spent_s: float) -> Reading:
    """Of a job that asked for so many seconds: what took much longer to answer was queued."""
    latency_ms, throughput = outcome["latency_ms"], outcome["rate"]
    is_behind = False
    if load.rate is not None:
        is_behind = outcome["seconds"] > seconds * (1 + BEHIND) + latency_ms.get("p50", 0.0) / 1000
        good = outcome["requests"] - sum(outcome["errors"].values())
        # By chance more or fewer came in this time, and the last one was answered a little after its end.
        throughput = throughput if is_behind else load.rate * good / max(1, outcome["requests"])
    return Reading(
        throughput=throughput,
        p50_ms=latency_ms.get("p50", math.inf),
        p99_ms=latency_ms.get("p99", math.inf),
        requests=outcome["requests"],
        spent_s=spent_s,
        errors=outcome["errors"],
        is_behind=is_behind,
    )


def _failed(why: str, spent_s: float) -> Reading:
    return Reading(0.0, math.inf, math.inf, 0, spent_s, {why: 1})


def refuse_failures(meter: Meter, found: Reading, ask: Ask) -> None:
    """Raise AutoTuneError, with what the handler said, where requests fail for another reason than too much load."""
    errors = {what: count for what, count in found.errors.items() if not what.startswith(OVERLOAD)}
    if not errors:
        return
    counted = ", ".join(f"{count} times {what}" for what, count in errors.items())
    said = meter.last_error()
    raise AutoTuneError(
        f"with {ask.why} requests fail ({ask.load.words()}): {counted}{f'; the handler said: {said}' if said else ''}"
    )

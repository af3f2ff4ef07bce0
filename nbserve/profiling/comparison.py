"""What came of trying settings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from nbserve.errors import ProfileError
from nbserve.profiling.answers import Difference
from nbserve.profiling.statistics import LEAST_PAIRS, Estimate, Verdict
from nbserve.profiling.summary import assignments

if TYPE_CHECKING:
    from nbserve.verbs import Endpoint

Measure = Literal["median latency", "throughput"]
# What rounding does when sums are taken in another order, in half precision too.
SAME_WITHIN = 0.02


@dataclass(frozen=True)
class Comparison:
    """The current settings and the changed ones side by side: `speedup` is of `measure`, `interval` its 95 %.

    `latency_ms` and `throughput` (answers per second) have the keys "current" and "changed". `difference` is that of
    their answers, `own_difference` that of the current settings' answers from each other and from the recorded ones.
    """

    endpoint: Endpoint = field(repr=False)
    settings: Mapping[str, Any]
    measure: Measure
    estimate: Estimate
    latency_ms: Mapping[str, float]
    throughput: Mapping[str, float]
    difference: Difference
    own_difference: Difference
    clients: int
    seconds: float
    is_applied: bool = False

    @property
    def verdict(self) -> Verdict:
        return self.estimate.verdict

    @property
    def speedup(self) -> float:
        return self.estimate.speedup

    @property
    def interval(self) -> tuple[float, float]:
        return self.estimate.interval

    @property
    def pairs(self) -> int:
        """How many pairs of neighbouring blocks were measured."""
        return self.estimate.pairs

    @property
    def max_difference(self) -> float:
        """The largest difference of two numbers in the same place of an answer."""
        return self.difference.largest

    @property
    def has_same_answers(self) -> bool:
        """Whether the answers differ by no more than rounding, or no more than the current ones do by themselves."""
        own, found = self.own_difference, self.difference
        allowed = max(SAME_WITHIN, 2 * own.largest_relative)
        return found.largest_relative <= allowed and bool(own.others or not found.others)

    def apply(self) -> dict[str, Any]:
        """Change the endpoint to these settings; gives all of them. Raises ProfileError unless they are faster."""
        if self.verdict != "faster":
            raise ProfileError(f"{assignments(self.settings)}: {self.verdict}, so nothing is applied")
        return self.endpoint.configure(**self.settings)

    def __repr__(self) -> str:
        return "\n".join([self._said(), *self._measured(), *self._answers(), *self._next()])

    def _said(self) -> str:
        low, high = self.interval
        times = f"{self.speedup:.2f} times the speed, 95 % interval {low:.2f} to {high:.2f}"
        head = f"{assignments(self.settings)}: {self.verdict}"
        if self.verdict == "faster":
            return f"{head} by {self.speedup:.2f} times (95 % interval {low:.2f} to {high:.2f}, {self.measure})"
        if self.pairs < LEAST_PAIRS:
            return f"{head} proven: only {self.pairs} pairs fit into {self.seconds:.0f} s; give it more seconds"
        return f"{head} ({times}, {self.measure})"

    def _measured(self) -> Iterator[str]:
        for name in ("current", "changed"):
            yield f"  {name}  {self.latency_ms[name]:9.2f} ms median   {self.throughput[name]:9.1f} answers/s"
        plural = "s" * (self.clients > 1)
        yield f"  {self.pairs} pairs of blocks in turns, {self.clients} client{plural} at once, {self.seconds:.0f} s"

    def _answers(self) -> Iterator[str]:
        found = self.difference
        for other in found.others[:3]:
            yield f"  answers differ: {other}"
        if found.largest:
            yield f"  answers differ by at most {found.largest:.3g} ({found.largest_relative:.2g} of their size)"
        elif not found.others:
            yield "  answers are the same"
        own = self.own_difference
        if own.others or own.largest_relative > SAME_WITHIN:
            what = "; ".join(own.others[:1]) or f"by up to {own.largest:.3g}"
            yield f"  the current settings' own answers differ from each other too ({what}): is something random,"
            yield "  such as weights made up in initialize, or a layer in train mode?"

    def _next(self) -> Iterator[str]:
        if self.is_applied:
            yield f"  applied: {self.endpoint.name} runs with {assignments(self.settings)} until its cell runs again;"
            yield "  write it into the cell's options to keep it"
        elif self.verdict == "faster" and self.has_same_answers:
            words = f"config {self.endpoint.name} {' '.join(assignments(self.settings).split(','))}"
            yield f"  keep it: .apply(), %serve {words}, or nbserve {words}"
        elif self.verdict == "faster":
            yield "  not applied: the answers are not the same; .apply() applies it all the same"
        else:
            yield "  nothing was changed"

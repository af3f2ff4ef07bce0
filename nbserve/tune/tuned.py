"""What an auto-tune found: the best settings, all that was tried, how sure it is. Runs in the kernel or terminal."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nbserve.config import EndpointConfig
from nbserve.errors import AutoTuneError
from nbserve.tune import board, summary
from nbserve.tune.points import Goal, Point
from nbserve.tune.proof import GAINS, Proof, Verdict
from nbserve.tune.state import State

if TYPE_CHECKING:
    from nbserve.verbs import Endpoint


@dataclass(frozen=True)
class Tuned:
    """`best` and `current` are points: settings with the most that they do within the goal.

    `disturbing` requests came from clients meanwhile, and others took the share `crowd` of a machine that had no time
    left; `limit` says what kept the search from more workers.
    """

    endpoint: Endpoint = field(repr=False)
    state: State = field(repr=False)
    best: Point
    proof: Proof | None
    version: str
    is_clear: bool
    is_interrupted: bool = False
    is_applied: bool = False
    disturbing: int = 0
    crowd: float = 0.0
    limit: str = ""

    @property
    def name(self) -> str:
        return self.endpoint.name

    @property
    def goal(self) -> Goal:
        return self.state.goal

    @property
    def current(self) -> Point | None:
        """The settings as they were; what came nearest where they do not keep the goal."""
        return self.state.current_point

    @property
    def points(self) -> list[Point]:
        """All that was measured, the best as it was in the proof."""
        best = (self.best.settings, self.best.load)
        found = [self.best if (p.settings, p.load) == best else p for p in self.state.points]
        return found if self.best in found else [*found, self.best]

    @property
    def frontier(self) -> list[Point]:
        """Those that no other beats in both, throughput and latency."""
        return board.frontier(self.points)

    @property
    def seconds(self) -> float:
        return self.state.spent_s

    @property
    def settings(self) -> dict[str, Any]:
        """The best ones."""
        return self.best.settings.as_dict()

    @property
    def verdict(self) -> Verdict:
        if self.proof is not None:
            return self.proof.verdict
        return "not proven" if self.is_interrupted else "no gain"

    @property
    def is_gain(self) -> bool:
        return self.verdict in GAINS

    @property
    def speedup(self) -> float:
        """How many times more the best settings answer within the goal; 1.0 where nothing was proven."""
        return self.proof.speedup if self.proof is not None else 1.0

    @property
    def interval(self) -> tuple[float, float]:
        """Of `speedup`, 95 %."""
        return self.proof.estimate.interval if self.proof is not None else (1.0, 1.0)

    @property
    def options(self) -> str:
        """The best settings as options of `%%serve` and `nbserve serve`."""
        defaults = EndpointConfig().as_dict()
        changed = {name: value for name, value in self.settings.items() if value != defaults[name]}
        return " ".join(f"--{name.replace('_', '-')} {_word(value)}" for name, value in changed.items())

    @property
    def text(self) -> str:
        return summary.text(self)

    def apply(self) -> dict[str, Any]:
        """Change the endpoint to the best settings; gives all of them. Raises AutoTuneError unless they are better."""
        if not self.is_gain:
            raise AutoTuneError(f"{self.name}: {self.verdict}, so nothing is applied")
        if self.endpoint.version != self.version:
            raise AutoTuneError(
                f"{self.name} runs other code than what was tuned, so nothing is applied: tune it again"
            )
        return self.endpoint.configure(**self.settings)

    def applied(self) -> Tuned:
        """This, once it was applied."""
        self.apply()
        return replace(self, is_applied=True)

    def as_object(self) -> dict[str, Any]:
        """For programs: JSON."""
        return summary.as_object(self)

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        from nbserve.tune.page import result

        return result(self)

    def picture(self) -> bytes:
        """The same as a PNG."""
        from nbserve.tune.still import png

        return png(self)


def _word(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

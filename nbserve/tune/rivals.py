"""When is it clear which of two is faster, from measurements in turns? Pure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

# Less than this is no reason to change a setting; a window that waits costs those who come alone.
LEAST_GAIN, LEAST_GAIN_OF_A_WINDOW = 1.03, 1.05
# As good as the best, where it takes fewer workers or threads.
AS_GOOD = 0.97
# What one round, or two, leave no doubt of.
CLEARLY_MORE, CLEARLY_LESS = 1.4, 0.8
MORE, LESS = 1.1, 0.95
MOST_ROUNDS = 3


@dataclass
class Match:
    """Rounds of one that wants to lead against the one that does: how many times more it answered in each.

    Who is leaner need only be as good; others need `least_gain`, and more in every round.
    """

    is_leaner: bool = False
    least_gain: float = LEAST_GAIN
    ratios: list[float] = field(default_factory=list)

    def add(self, ratio: float) -> None:
        self.ratios.append(ratio)

    @property
    def rounds(self) -> int:
        return len(self.ratios)

    @property
    def is_open(self) -> bool:
        """Whether another round could change the outcome."""
        if self.rounds == 0:
            return True
        if self.rounds >= MOST_ROUNDS or self._is_lost:
            return False
        more, less = (CLEARLY_MORE, CLEARLY_LESS) if self.rounds == 1 else (MORE, LESS)
        return not (min(self.ratios) > more or max(self.ratios) < less)

    @property
    def is_won(self) -> bool:
        middle = statistics.median(self.ratios)
        if self.is_leaner:
            return middle >= AS_GOOD
        return middle > self.least_gain and min(self.ratios) > 1

    @property
    def _is_lost(self) -> bool:
        """Less in one round is enough to lose, but where as good is good enough."""
        return not self.is_leaner and min(self.ratios) <= 1

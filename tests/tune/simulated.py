"""An endpoint made of arithmetic: how many answers closed-loop clients get of it, and how late, with some noise."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from nbserve.tune.board import Board
from nbserve.tune.points import Ask, Goal, Load, Reading, Settings
from nbserve.tune.ramp import Asks
from nbserve.tune.search import Search
from nbserve.tune.space import Space

SET_UP_S = 0.1
RESTART_S = 0.2


@dataclass
class Simulated:
    """A batch of B takes `fixed_ms + row_ms * B` on one core; `parallel` of it is shared by threads.

    Rows of large batches take up to `1 + padded` times as long. What `waits` (for a GPU, say) takes no core.
    `front_per_s` is what the server in front of the workers can do. A share of the measurements is `disturbed`, by
    half and more, and `drift` makes the machine slower and faster again.
    """

    fixed_ms: float
    row_ms: float
    cores: int = 2
    parallel: float = 0.0
    padded: float = 0.0
    waits: bool = False
    front_per_s: float = 20_000.0
    come_back_ms: float = 0.3
    noise: float = 0.0
    disturbed: float = 0.0
    drift: float = 0.0
    asks: list[Ask] = field(default_factory=list)
    _seen: Counter[tuple[Settings, Load]] = field(default_factory=Counter)

    def answer(self, ask: Ask) -> Reading:
        last = self.asks[-1].settings if self.asks else None
        self.asks.append(ask)
        self._seen[ask.settings, ask.load] += 1
        changed_s = RESTART_S if last != ask.settings else 0.0
        throughput, p99_ms = self.truth(ask.settings, ask.load)
        speed = 1 + self.noise * (2 * self._chance(ask, "noise") - 1)
        speed *= 1 - self.drift * (0.5 - 0.5 * math.cos(len(self.asks) / 10))
        stall = 1.0
        if self._chance(ask, "is disturbed") < self.disturbed:
            speed *= 0.4 + 0.4 * self._chance(ask, "by how much")
            stall = 4.0
        spent_s = ask.seconds + ask.warm_s + SET_UP_S + changed_s
        return Reading(throughput * speed, p99_ms / speed / 1.2, stall * p99_ms / speed, 200, spent_s)

    def truth(self, settings: Settings, load: Load) -> tuple[float, float]:
        """Answers a second and the 99th percentile in milliseconds."""
        if load.rate is not None:
            return self._open(settings, load.rate)
        throughput, batch_ms = self._closed(settings, load.clients)
        return throughput, 1.1 * max(load.clients / throughput * 1000, batch_ms)

    def _closed(self, settings: Settings, clients: int) -> tuple[float, float]:
        workers = min(settings.workers, self.cores, clients)
        size = min(settings.max_batch_size, max(1, clients // workers))
        service_ms = self._service_ms(settings, workers, size)
        wait_ms = settings.max_batch_delay_ms if settings.policy == "window" and size < settings.max_batch_size else 0
        idle_ms = self.come_back_ms if clients <= workers * size else 0
        cycle_ms = service_ms + wait_ms + idle_ms
        return min(self.front_per_s, workers * size / cycle_ms * 1000), service_ms + wait_ms

    def _open(self, settings: Settings, rate: float) -> tuple[float, float]:
        most, _ = self._closed(settings, 10 * settings.max_batch_size * settings.workers)
        if rate >= most:
            return most, 10_000.0
        one_ms = self._service_ms(settings, 1, 1)
        wait_ms = settings.max_batch_delay_ms if settings.policy == "window" else 0
        return rate, 1.5 * (one_ms + wait_ms) / (1 - rate / most)

    def _service_ms(self, settings: Settings, workers: int, size: int) -> float:
        work_ms = self.fixed_ms + self.row_ms * size * (1 + self.padded * (1 - 1 / size))
        if self.waits:
            return work_ms
        threads = settings.threads(self.cores)
        crowd = max(1.0, settings.workers * threads / self.cores)
        return work_ms * (1 - self.parallel + self.parallel / min(threads, self.cores)) * crowd**1.5

    def _chance(self, ask: Ask, what: str) -> float:
        """From 0 to 1, the same in each run, and another one for each repetition."""
        key = f"{ask.settings} {ask.load} {self._seen[ask.settings, ask.load]} {what}"
        return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") / 2**32


def space(endpoint: Simulated, goal: Goal) -> Space:
    return Space(goal, endpoint.cores, most_workers=endpoint.cores)


def tuned(
    endpoint: Simulated,
    goal: Goal,
    current: Settings | None = None,
    budget_s: float = 100.0,
    answer: Callable[[Ask], Reading] | None = None,
) -> tuple[Search, Board]:
    """Run a whole search; `answer` takes the place of the endpoint's."""
    board = Board(goal)
    search = Search(space(endpoint, goal), board, current or Settings(), budget_s)
    answered(search.asks(), endpoint, answer)
    return search, board


def answered(asks: Asks, endpoint: Simulated, answer: Callable[[Ask], Reading] | None = None) -> None:
    """Answer all that is asked; `answer` takes the place of the endpoint's."""
    try:
        ask = next(asks)
        while True:
            ask = asks.send((answer or endpoint.answer)(ask))
    except StopIteration:
        return


def most(endpoint: Simulated, goal: Goal) -> float:
    """What the best of all settings does within the goal: everything is tried."""
    every = space(endpoint, goal)
    found = 0.0
    for workers in every.line("workers", Settings()):
        for threads in every.line("threads", workers):
            for batch in every.line("batch size", threads):
                for settings in every.line("policy", batch):
                    found = max(found, within(endpoint, goal, settings))
    return found


def within(endpoint: Simulated, goal: Goal, settings: Settings) -> float:
    """The most that these settings truly do within the goal."""
    loads = space(endpoint, goal).loads()
    known = [endpoint.truth(settings, load) for load in loads]
    return max((rate for rate, p99_ms in known if p99_ms <= goal.p99_ms), default=0.0)


def fresh(endpoint: Simulated, **changes: float) -> Simulated:
    """The same without noise, of which nothing was asked yet."""
    calm = {"noise": 0.0, "disturbed": 0.0, "drift": 0.0, **changes}
    return replace(endpoint, **calm, asks=[], _seen=Counter())  # type: ignore[arg-type]

"""Which settings and loads there are to try, each kind along a line from small to large. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from nbserve.tune.points import Goal, Load, Settings

Coordinate = Literal["workers", "threads", "batch size", "policy"]
# Workers and threads change the most, and what the best batch size is.
COORDINATES: tuple[Coordinate, ...] = ("workers", "batch size", "threads", "policy")

MOST_BATCH = 512
MOST_CLIENTS = 512
WORKERS_PER_GPU = 2
# The rates of an open loop: so far apart, up to a thousand times the first.
RATE_STEP, RATE_STEPS = 1.1, 73
# A delay that takes more of the goal leaves too little for the work.
MOST_OF_GOAL = 0.5
DELAYS_MS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)


@dataclass(frozen=True)
class Space:
    """What this machine and this goal allow. `queue_size` is how many requests may wait at the endpoint."""

    goal: Goal
    cores: int
    most_workers: int
    queue_size: int = 1024

    @property
    def is_open(self) -> bool:
        """Whether requests come at a rate, whatever happens."""
        return self.goal.rate is not None

    def loads(self) -> list[Load]:
        """From the least that says something upwards; neighbours are close enough for the best to be near one."""
        if self.goal.rate is None:
            most = min(MOST_CLIENTS, self.queue_size)
            return [Load(clients) for clients in ladder(most)]
        return [Load(rate=self.goal.rate * RATE_STEP**step) for step in range(RATE_STEPS)]

    def seeds(self) -> Iterator[Settings]:
        """Settings that are good for many handlers."""
        yield Settings()
        yield Settings(workers=self.most_workers)
        yield Settings(workers=self.most_workers, max_batch_size=128)
        yield Settings(workers=self.most_workers, max_batch_size=4)

    def line(self, coordinate: Coordinate, through: Settings) -> list[Settings]:
        """All that differ in this alone, in order; `through` is one of them."""
        if coordinate == "workers":
            return list(self._workers(through))
        if coordinate == "threads":
            return list(self._threads(through))
        if coordinate == "batch size":
            sizes = _with(_doubling(MOST_BATCH), through.max_batch_size)
            return [through if size == through.max_batch_size else _of_size(through, size) for size in sizes]
        return list(self._policies(through))

    def _workers(self, through: Settings) -> Iterator[Settings]:
        for workers in _with(ladder(self.most_workers), through.workers):
            changed = replace(through, workers=workers)
            # As many threads as before would be more than there are cores.
            too_many = workers > through.workers and workers * through.threads_per_worker > self.cores
            yield replace(changed, threads_per_worker=0) if too_many else changed

    def _threads(self, through: Settings) -> Iterator[Settings]:
        share = max(1, self.cores // through.workers)
        own = through.threads(self.cores)
        for threads in _with(_doubling(share), own):
            if threads == own:
                yield through
            else:
                yield replace(through, threads_per_worker=0 if threads == share else threads)

    def _policies(self, through: Settings) -> Iterator[Settings]:
        yield replace(through, policy="adaptive", max_batch_delay_ms=0.0)
        if through.max_batch_size == 1 and through.policy == "adaptive":
            return
        most_ms = self.goal.p99_ms * MOST_OF_GOAL
        own = [through.max_batch_delay_ms] if through.policy == "window" else []
        for delay_ms in sorted({*(ms for ms in DELAYS_MS if ms <= most_ms), *own}):
            yield replace(through, policy="window", max_batch_delay_ms=delay_ms)


def _of_size(settings: Settings, size: int) -> Settings:
    """The same with other batches; batches of one wait for nothing."""
    changed = replace(settings, max_batch_size=size)
    return replace(changed, policy="adaptive", max_batch_delay_ms=0.0) if size == 1 else changed


def ladder(most: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, ... and `most`."""
    steps = sorted({step for power in range(most.bit_length()) for step in (2**power, 3 * 2**power)})
    return _with((step for step in steps if step <= most), most)


def _doubling(most: int) -> list[int]:
    return _with((2**power for power in range(most.bit_length())), most)


def _with(values: Iterable[int], own: int) -> list[int]:
    return sorted({*values, own})


def workers_by_device(cores: int, gpus: int, is_on_gpu: bool) -> int:
    """More workers than these only wait for each other."""
    return WORKERS_PER_GPU * max(1, gpus) if is_on_gpu else cores


def most_workers(by_device: int, worker_bytes: int, free_bytes: int, beside: int) -> int:
    """How many may be tried: no more than fit into memory with those that run `beside` them."""
    return max(1, min(by_device, free_bytes // max(1, worker_bytes) - beside))


def highest(loads: Sequence[Load], size: float) -> int:
    """The index of the largest load that is not above `size`; 0 if all are."""
    return max((i for i, load in enumerate(loads) if load.size <= size), default=0)

"""What this machine lets workers have: cores, GPUs and memory. Runs in the kernel or the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from nbserve.tune.points import Goal, Settings
from nbserve.tune.space import Space, most_workers, workers_by_device

if TYPE_CHECKING:
    from nbserve.verbs import Endpoint

# The rest of the machine needs some of the free memory too.
SHARE_OF_MEMORY = 0.8
# Larger batches than so far take more.
GROWTH = 1.25


@dataclass(frozen=True)
class Limits:
    """`worker_bytes` is what one more worker takes; `beside` workers with the current settings run for the proof."""

    cores: int
    gpus: int
    is_on_gpu: bool
    worker_bytes: int
    free_bytes: int
    beside: int

    @classmethod
    def of(cls, endpoint: Endpoint, status: Mapping[str, Any]) -> Limits:
        machine, workers = endpoint.server.info(), status["workers"]
        return cls(
            cores=machine["cores"],
            gpus=machine["gpus"],
            is_on_gpu=any(worker["device"].startswith("cuda") for worker in workers),
            worker_bytes=int(GROWTH * max((_own_bytes(worker) for worker in workers), default=1)),
            free_bytes=int(SHARE_OF_MEMORY * psutil.virtual_memory().available),
            beside=status["settings"]["workers"],
        )

    @property
    def most_workers(self) -> int:
        return most_workers(self._by_device, self.worker_bytes, self.free_bytes, self.beside)

    @property
    def _by_device(self) -> int:
        return workers_by_device(self.cores, self.gpus, self.is_on_gpu)

    def space(self, goal: Goal, queue_size: int) -> Space:
        return Space(goal, self.cores, self.most_workers, queue_size)

    def told(self, best: Settings) -> str:
        """What kept the search from more workers than the best has, if it was memory."""
        if best.workers < self.most_workers or self.most_workers >= self._by_device:
            return ""
        return (
            f"more than {self.most_workers} workers were not tried: one takes about {self.worker_bytes / 1e6:,.0f} MB, "
            f"and {self.free_bytes / 1e6:,.0f} MB were free for them"
        )


def _own_bytes(worker: Mapping[str, Any]) -> int:
    """What a further one like it would take: what it shares with others, such as weights, is there already."""
    try:
        own: int = psutil.Process(worker["pid"]).memory_full_info().uss
    except (psutil.Error, TypeError):
        own = worker["rss_bytes"]
    return own

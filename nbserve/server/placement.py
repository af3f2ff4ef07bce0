"""Which device, how many threads and which CPUs each worker gets. Decisions are pure; server process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from nbserve.config import EndpointConfig
from nbserve.errors import ConfigError
from nbserve.server.machine import Machine, this_machine


@dataclass(frozen=True)
class Placement:
    """Places the workers of one endpoint on one machine."""

    machine: Machine

    @classmethod
    def of_this_machine(cls) -> Placement:
        return cls(this_machine())

    @property
    def cores(self) -> int:
        """CPU cores this server may use, at least 1."""
        return self.machine.cores

    def threads(self, config: EndpointConfig) -> int:
        """Threads per worker: as set, else an equal share of the cores; all of them for each is 3-13 times slower."""
        return config.threads_per_worker or max(1, self.cores // config.workers)

    def device(self, config: EndpointConfig, index: int) -> str:
        """The torch device of worker `index`; `auto` and `cuda` go round the GPUs."""
        kind, _, number = config.device.partition(":")
        gpus = self.machine.gpus
        if kind == "auto":
            return f"cuda:{index % gpus}" if gpus else "cpu"
        if kind != "cuda":
            return config.device
        if not gpus:
            raise ConfigError(f"device is {config.device!r} but this machine shows no NVIDIA GPU; use 'cpu' or 'auto'")
        if number and int(number) >= gpus:
            raise ConfigError(f"device is {config.device!r} but the last GPU here is 'cuda:{gpus - 1}'")
        return f"cuda:{number or index % gpus}"

    def cpus(self, config: EndpointConfig, index: int) -> list[int] | None:
        """The CPUs worker `index` is bound to: one whole NUMA node if there are several, else None (no binding)."""
        nodes = self.machine.numa_nodes
        if len(nodes) < 2 or self.threads(config) > min(map(len, nodes)):
            return None
        return list(nodes[index % len(nodes)])


class DeviceSlots:
    """Batches in flight per device, over all endpoints: one per GPU, as many as there are cores on the CPU.

    Four workers that each run a batch on one serial device take twice as long for all as one after the other.
    """

    def __init__(self, cores: int) -> None:
        self._cores = max(1, cores)
        self._in_flight: defaultdict[str, int] = defaultdict(int)
        self._refused: defaultdict[str, dict[Callable[[], None], None]] = defaultdict(dict)

    def capacity(self, device: str) -> int:
        return self._cores if device == "cpu" else 1

    def in_flight(self, device: str) -> int:
        return self._in_flight[device]

    def has_room(self, device: str, on_room: Callable[[], None] | None = None) -> bool:
        """Whether a batch may start on `device`; if not, `on_room` is called once when one of its batches ends."""
        if self._in_flight[device] < self.capacity(device):
            return True
        if on_room is not None:
            self._refused[device][on_room] = None
        return False

    def acquire(self, device: str) -> None:
        self._in_flight[device] += 1

    def release(self, device: str) -> None:
        if self._in_flight[device] < 1:
            raise ValueError(f"no batch is in flight on {device}")
        self._in_flight[device] -= 1
        refused = self._refused.pop(device, {})
        for on_room in refused:
            on_room()

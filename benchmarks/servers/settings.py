"""What the benchmark tells a server about this run, through the environment. Written by kinds.py, read in servers."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from benchmarks.workloads import WORKLOADS, Workload


@dataclass(frozen=True)
class Settings:
    """One server's task: which workload, where, with how many workers, threads in each, and its batching."""

    workload: str
    port: int
    workers: int
    threads: int
    max_batch_size: int
    window_ms: float

    def load(self) -> Workload:
        """The workload with its model, in this process."""
        return WORKLOADS[self.workload](self.threads)

    def as_environment(self) -> dict[str, str]:
        return {
            "BENCH_WORKLOAD": self.workload,
            "BENCH_PORT": str(self.port),
            "BENCH_WORKERS": str(self.workers),
            "BENCH_THREADS": str(self.threads),
            "BENCH_MAX_BATCH_SIZE": str(self.max_batch_size),
            "BENCH_WINDOW_MS": str(self.window_ms),
            "OMP_NUM_THREADS": str(self.threads),
        }

    @classmethod
    def from_environment(cls) -> Settings:
        return cls(
            workload=os.environ["BENCH_WORKLOAD"],
            port=int(os.environ["BENCH_PORT"]),
            workers=int(os.environ["BENCH_WORKERS"]),
            threads=int(os.environ["BENCH_THREADS"]),
            max_batch_size=int(os.environ["BENCH_MAX_BATCH_SIZE"]),
            window_ms=float(os.environ["BENCH_WINDOW_MS"]),
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port

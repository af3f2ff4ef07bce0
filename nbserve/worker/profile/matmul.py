"""How fast this CPU multiplies matrices: `python -m nbserve.worker.profile.matmul THREADS` prints GFLOP/s."""

from __future__ import annotations

import sys
import time

import torch

SIZE = 1024
FOR_S = 0.5
LEAST_RUNS = 3


def fastest_gflops(threads: int) -> float:
    """The best with so many threads, or with one: where other processes want the cores, several may be slower."""
    return max(_gflops(threads), _gflops(1))


def _gflops(threads: int) -> float:
    """The best of as many products as half a second holds: a peak is what nothing disturbed."""
    torch.set_num_threads(threads)
    left, right = torch.rand(SIZE, SIZE), torch.rand(SIZE, SIZE)
    best_s, ends_s, runs = float("inf"), time.perf_counter() + FOR_S, 0
    while runs < LEAST_RUNS or time.perf_counter() < ends_s:
        began_s = time.perf_counter()
        torch.mm(left, right)
        best_s = min(best_s, time.perf_counter() - began_s)
        runs += 1
    return 2 * SIZE**3 / best_s / 1e9


if __name__ == "__main__":
    sys.stdout.write(f"{fastest_gflops(int(sys.argv[1])):.3f}\n")

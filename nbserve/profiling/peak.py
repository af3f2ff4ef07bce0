"""This CPU's peak in multiplying matrices, measured by a child process. Kernel or terminal, without torch."""

from __future__ import annotations

import functools
import math
import os
import subprocess
import sys
from collections.abc import Mapping

LIMIT_S = 60.0
# The threads that are asked for count, not those that the environment of a notebook has for its own torch.
_OWN_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@functools.cache
def peak_gflops(threads: int) -> float | None:
    """GFLOP/s of float32 products with so many threads, None where they could not be measured.

    Takes some seconds, the first time: torch is imported elsewhere for it.
    """
    command = [sys.executable, "-m", "nbserve.worker.profile.matmul", str(threads)]
    try:
        done = subprocess.run(
            command,
            env=environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return gflops_of(done.stdout)


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """What the child gets of this process's environment; it finds nbserve where this process did."""
    kept = {name: value for name, value in variables.items() if name not in _OWN_THREADS}
    return kept | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def gflops_of(output: str) -> float | None:
    """The number in the last line that the child wrote; None for what is none."""
    lines = output.split()
    try:
        gflops = float(lines[-1]) if lines else math.nan
    except ValueError:
        return None
    return gflops if 0 < gflops < math.inf else None

"""What a nursery or worker sets on its own process: parent, name, log, random state, threads."""

from __future__ import annotations

import atexit
import ctypes
import faulthandler
import gc
import io
import os
import random
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends, however that ends. Linux only."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        # The parent was gone before the call: no signal will ever come.
        os._exit(1)


def set_name(name: str) -> None:
    """The name that ps and top show; Linux keeps 15 bytes of it."""
    _prctl(_PR_SET_NAME, name.encode()[:15])


def thread_count() -> int:
    """How many threads this process has, the ones of C libraries included."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.is_dir() else 1


def freeze_memory() -> None:
    """Keep what lives now out of garbage collection, so that forks go on sharing its pages."""
    gc.collect()
    gc.freeze()


def write_to_log(log_fd: int) -> None:
    """Send what this process and its libraries print to `log_fd`, line by line, and read nothing from a terminal."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for fd, target in ((nothing, 0), (log_fd, 1), (log_fd, 2)):
        os.dup2(fd, target)
    os.close(nothing)
    if log_fd > 2:
        os.close(log_fd)
    # New ones: the nursery's may have learned that they write to a file, and a pipe cannot seek.
    sys.stdout = sys.__stdout__ = _line_writer(1)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _line_writer(2)  # type: ignore[misc]


def dump_stacks_on_request() -> None:
    """Print all threads' stacks to the log on SIGUSR1, and on a crash in C code."""
    faulthandler.enable(file=2)
    faulthandler.register(signal.SIGUSR1, file=2, all_threads=True, chain=False)


def reset_signals() -> None:
    """Undo what the nursery set: a worker dies of SIGTERM and can wait for children of its own."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def bind(cpus: list[int] | None) -> None:
    """Run on these CPUs only, where that can be said; None leaves it to the kernel."""
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)


def set_threads(threads: int) -> None:
    """Limit the math libraries to `threads`, from the first operation on; torch can change it later too."""
    import torch

    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    torch.set_num_threads(threads)


def reseed() -> None:
    """Give this worker random state of its own: forks have their parent's, and torch starts from a fixed seed."""
    import torch

    random.seed()
    torch.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def exit_now(code: int) -> None:
    """End a forked process: exit functions run and buffers are written, the nursery's stack is not unwound."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _line_writer(fd: int) -> io.TextIOWrapper:
    return open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _prctl(option: int, value: int | bytes) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)

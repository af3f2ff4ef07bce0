"""Torch's own profiler around a worker's batches; gives way to one that the handler starts. Runs in the worker."""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch._C._profiler import _ExperimentalConfig

from nbserve.errors import TraceError

# Torch's own modules, which tell type checkers little.
_autograd: Any = torch.autograd
_profiler: Any = torch.autograd.profiler
_TAIL_BYTES = 64
OWN_FIRST = "the handler's code uses torch's profiler itself: there is no trace of operators"
OWN_LATER = "the handler's code started torch's profiler itself: the trace of operators ends there"
NO_STACKS = "the handler's code has set a profiler by sys.setprofile: the trace of operators has no Python stacks"
LOST = "the handler's code used torch's profiler in a thread of its own, which took the trace of operators with it"


class Tracer:
    """Records the operators of the main thread from `start` to `stop`.

    `why_over` says what ended it before, `why_less` what is missing.
    """

    def __init__(self, *, shapes: bool, memory: bool, stacks: bool, device: str) -> None:
        self.why_over: str | None = None
        self.why_less: str | None = None
        self._options: dict[str, Any] = {"record_shapes": shapes, "profile_memory": memory, "with_stack": stacks}
        if device.startswith("cuda"):
            self._options["use_device"] = "cuda"
        self._profile: Any = None
        self._results: Any = None
        self._prepare: Any = None
        self._thread = 0

    @property
    def gave_way(self) -> bool:
        return self.why_over == OWN_LATER

    def start(self) -> None:
        """Begin, in this thread; not where the handler's code has begun before."""
        if torch._C._autograd._profiler_enabled() or getattr(_profiler, "_is_profiler_enabled", False):
            self.why_over = OWN_FIRST
            return
        # Else Kineto writes its own doings into the endpoint's log. It reads this once.
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")
        if self._options["with_stack"] and sys.getprofile() is not None:
            self._options["with_stack"] = False
            self.why_less = NO_STACKS
        self._thread = threading.get_ident()
        # Its first use imports modules, which is nothing to be recorded.
        with _profiler.record_function("nbserve"):
            pass
        # Not torch.profiler's: that imports torch._inductor when it starts, which takes seconds.
        profile = _profiler.profile(use_kineto=True, experimental_config=self._config(), **self._options)
        try:
            profile.__enter__()
        except BaseException:
            # Torch has noted that one runs before it tried to start it.
            _profiler._is_profiler_enabled = False
            raise
        self._profile = profile
        self._prepare = _profiler._prepare_profiler
        _profiler._prepare_profiler = self._make_way

    def stop(self) -> None:
        """End the recording; what it has is kept for `write`."""
        if self._profile is None:
            return
        _profiler._prepare_profiler = self._prepare
        profile, self._profile = self._profile, None
        profile.__exit__(None, None, None)
        # Results of a session that others ended are empty, and torch crashes when it is to write them.
        if profile.kineto_results.trace_start_ns():
            self._results = profile.kineto_results
        else:
            self.why_over = self.why_over or LOST

    def write(self, path: Path) -> bool:
        """Write what was recorded, if anything was; whether there is a file then. Holds the GIL for all of it."""
        results, self._results = self._results, None
        if results is None:
            return False
        results.save(str(path))
        _check_written(path)
        return True

    def _config(self) -> _ExperimentalConfig:
        """Torch's list of events is of no use here; a stack's names, though, come with it."""
        config = _ExperimentalConfig()
        if hasattr(config, "trace_only") and not self._options["with_stack"]:
            config = _ExperimentalConfig(trace_only=True)
        return config

    def _make_way(self, *args: Any, **kwargs: Any) -> Any:
        """In the place of torch's function for whoever starts a profiler: two at once would end in a crash."""
        if threading.get_ident() != self._thread:
            raise RuntimeError("nbserve records a profile of this worker now: start torch's profiler when it is done")
        self.why_over = OWN_LATER
        self.stop()
        return _profiler._prepare_profiler(*args, **kwargs)


def epoch_offset_ns() -> int:
    """Unix time minus CLOCK_MONOTONIC. The median of some: one alone is off when the thread loses its CPU in it."""
    offsets = []
    for _ in range(21):
        before_ns, now_ns, after_ns = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        offsets.append(now_ns - (before_ns + after_ns) // 2)
    return round(statistics.median_low(offsets))


def _check_written(path: Path) -> None:
    """Torch says nothing when it could not write a file, or only a part of it."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            is_whole = file.read().rstrip().endswith(b"}")
    except FileNotFoundError:
        is_whole = False
    if not is_whole:
        raise TraceError(f"torch could not write the whole trace to {path}: is the disk full?")


def record_nothing() -> None:
    """In a process that the handler forked: nobody would ever stop what was on in its parent."""
    if torch._C._autograd._profiler_enabled():
        _autograd._enable_record_function(False)
        sys.setprofile(None)

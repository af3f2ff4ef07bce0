"""Where the main thread is, every few milliseconds, without ptrace. Runs in the worker, in a thread of its own."""

from __future__ import annotations

import random
import sys
import threading
import time
import types
from collections.abc import Collection
from typing import Any, NamedTuple

from nbserve.worker.debug.stacks import is_ours, is_standard, shown_file

INTERVAL_MS = 5
# How soon Python code lets the sampler in. At Python's own 5 ms samples of short batches would all be of what lets go
# of the GIL by itself, such as torch's operators.
SWITCH_S = 50e-6


class Clock:
    """The nanoseconds that batches took so far. `begin` and `end` in the main thread, `busy_ns` in any."""

    def __init__(self) -> None:
        # In one tuple, which other threads see whole: what is over, and since when the batch at hand runs (0: none).
        self._state = (0, 0)

    def begin(self) -> None:
        self._state = (self._state[0], time.monotonic_ns())

    def end(self) -> None:
        over_ns, since_ns = self._state
        self._state = (over_ns + time.monotonic_ns() - since_ns, 0)

    def busy_ns(self) -> int:
        over_ns, since_ns = self._state
        return over_ns + time.monotonic_ns() - since_ns if since_ns else over_ns


class _Place(NamedTuple):
    """A function as it is shown, and whose it is."""

    name: str
    file: str
    is_ours: bool
    is_standard: bool


class Sampler:
    """Counts for each stack of the main thread the time that passed in batches since the sample before.

    Samples come late while C code holds the GIL: to count them would give what runs then too small a share.
    """

    def __init__(self, roots: Collection[types.CodeType]) -> None:
        """`roots` are the functions around the handler's code: no sample counts without one of them."""
        self.clock = Clock()
        self._roots = frozenset(roots)
        self._main = threading.main_thread().ident or 0
        self._stacks: dict[tuple[tuple[types.CodeType, int], ...], int] = {}
        self._counted_ns = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nbserve-sampler", daemon=True)
        self._switch_s = sys.getswitchinterval()

    def start(self) -> None:
        sys.setswitchinterval(SWITCH_S)
        self._thread.start()

    def stop(self) -> None:
        sys.setswitchinterval(self._switch_s)
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join()

    def result(self) -> dict[str, Any]:
        """The stacks, outermost function first, without nbserve's own functions around the handler's."""
        known: dict[types.CodeType, _Place] = {}
        total: dict[tuple[tuple[str, str, int], ...], int] = {}
        for stack, nanoseconds in self._stacks.items():
            shown = _shown(stack, known)
            total[shown] = total.get(shown, 0) + nanoseconds
        stacks = [{"frames": frames, "ms": nanoseconds / 1e6} for frames, nanoseconds in total.items()]
        return {"interval_ms": INTERVAL_MS, "total_ms": self.clock.busy_ns() / 1e6, "stacks": stacks}

    def take(self, frame: types.FrameType) -> None:
        """A sample: the main thread is there."""
        busy_ns = self.clock.busy_ns()
        if stack := self._stack(frame):
            self._stacks[stack] = self._stacks.get(stack, 0) + busy_ns - self._counted_ns
            self._counted_ns = busy_ns

    def _run(self) -> None:
        # The frame in a call of its own: one that is kept keeps alive what its function holds.
        # At intervals of chance: even ones would meet batches that come at even ones in the same place again and again.
        chance = random.Random(0)
        while not self._is_over.wait(INTERVAL_MS / 1000 * chance.uniform(0.5, 1.5)):
            self.take(sys._current_frames()[self._main])

    def _stack(self, frame: types.FrameType) -> tuple[tuple[types.CodeType, int], ...]:
        """Its functions and lines, outermost first; empty where no batch runs."""
        found: list[tuple[types.CodeType, int]] = []
        at: types.FrameType | None = frame
        while at is not None and at.f_code not in self._roots:
            found.append((at.f_code, at.f_lineno or 0))
            at = at.f_back
        return tuple(reversed(found)) if at is not None else ()


def _shown(
    stack: tuple[tuple[types.CodeType, int], ...], known: dict[types.CodeType, _Place]
) -> tuple[tuple[str, str, int], ...]:
    for code, _ in stack:
        if code not in known:
            known[code] = _place(code)
    places = [(known[code], line) for code, line in stack]
    theirs = [(place, line) for place, line in places if not place.is_ours]
    # What the standard library does for nbserve makes no sense without nbserve.
    shown = theirs if theirs and not theirs[0][0].is_standard else places
    return tuple((place.name, place.file, line) for place, line in shown)


def _place(code: types.CodeType) -> _Place:
    # Python 3.10 knows no names with classes in them.
    name = getattr(code, "co_qualname", code.co_name)
    file = code.co_filename
    return _Place(name, shown_file(file), is_ours(file), is_standard(file))

"""Runs the bundle's recorded requests before the worker is ready, so that no client waits for a compiler. Worker."""

from __future__ import annotations

import contextlib
import itertools
import pdb
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nbserve import wire
from nbserve.bundle.bundle import Golden
from nbserve.worker.metrics import UserMetrics
from nbserve.worker.runner import Runner

MAX_REQUESTS = 8


class WarmUp:
    """Takes recorded requests through a handler, alone and in batches of each size that will be compiled for."""

    def __init__(self, runner: Runner, as_written: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        """`as_written` is entered to run the handler uncompiled: what fails there too is not the compiler's fault."""
        self._runner = runner
        self._as_written = as_written

    def run(self, recorded: Sequence[Golden], max_batch_size: int) -> list[int]:
        """The sizes that ran; raises CompiledFails when only the compiled handler fails."""
        rows = [row_of(pair) for pair in reversed(recorded) if pair.status < 400]
        good = [row for row in rows[:MAX_REQUESTS] if self._runs([row])]
        if not good:
            return []
        return [size for size in sizes(max_batch_size) if size == 1 or self._runs_at(size, good)]

    def _runs_at(self, size: int, good: list[wire.Row]) -> bool:
        """Rows of different requests, or of one where different ones do not go together."""
        return self._runs(list(itertools.islice(itertools.cycle(good), size))) or self._runs([good[0]] * size)

    def _runs(self, rows: list[wire.Row]) -> bool:
        failed, error = self._fails(rows)
        if not failed:
            return True
        with self._as_written():
            fails_as_written, _ = self._fails(rows)
        if not fails_as_written:
            raise CompiledFails(error)
        return False

    def _fails(self, rows: list[wire.Row]) -> tuple[bool, BaseException | None]:
        """Whether a row is answered with an error, and what was raised."""
        raised: list[BaseException] = []
        self._runner.on_failure = lambda _, error: raised.append(error)
        outcome = self._runner.run(wire.Batch(0, rows))
        return any(result.status >= 400 for result in outcome.results), next(iter(raised), None)


class CompiledFails(Exception):
    """A request was answered by the handler as it is written, and not by the compiled one, which raised `error`."""

    def __init__(self, error: BaseException | None) -> None:
        super().__init__(error)
        self.error = error


def sizes(max_batch_size: int) -> list[int]:
    """1, 2, 4, ... up to the largest batch, which is always among them."""
    powers = itertools.takewhile(lambda size: size < max_batch_size, (1 << power for power in itertools.count()))
    return [*powers, max_batch_size]


def row_of(pair: Golden) -> wire.Row:
    return wire.Row(0, b"\0" + pair.content_type.encode("latin-1") + b"\0", memoryview(pair.request_body))


@contextlib.contextmanager
def rehearsal(runner: Runner, metrics: UserMetrics) -> Iterator[None]:
    """Requests that nobody sent: they fail whole, count nowhere, and hold at no `breakpoint()`."""
    kept: list[tuple[Any, str, Any]] = [
        (sys, "breakpointhook", sys.breakpointhook),
        (pdb, "set_trace", pdb.set_trace),
        (runner, "isolate_errors", runner.isolate_errors),
        (runner, "on_failure", runner.on_failure),
    ]
    sys.breakpointhook = pdb.set_trace = _pass
    runner.isolate_errors = False
    try:
        with metrics.kept():
            yield
    finally:
        for owner, name, value in kept:
            setattr(owner, name, value)


def _pass(*args: Any, **kwargs: Any) -> None:
    """In the place of `breakpoint()`."""

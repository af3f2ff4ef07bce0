"""How a batch runs through a handler, and when each stage ended. Runs in the worker."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nbserve.handler import Context, Handler
from nbserve.wire import Stamps


@dataclass
class Watch:
    """CLOCK_MONOTONIC nanoseconds at the end of each stage of one batch."""

    taken_ns: int
    preprocessed_ns: int = 0
    inferred_ns: int = 0
    postprocessed_ns: int = 0

    def preprocessed(self) -> None:
        self.preprocessed_ns = time.monotonic_ns()

    def inferred(self) -> None:
        self.inferred_ns = time.monotonic_ns()

    def postprocessed(self) -> None:
        self.postprocessed_ns = time.monotonic_ns()

    def stamps(self) -> Stamps:
        """The stamps of a batch that is encoded now. A stage that was not marked took no time, or all the rest."""
        now = time.monotonic_ns()
        preprocessed = self.preprocessed_ns or self.inferred_ns or now
        inferred = self.inferred_ns or now
        return Stamps(self.taken_ns, preprocessed, inferred, self.postprocessed_ns or inferred, now)


Pipeline = Callable[[list[Any], Context, Watch], Sequence[Any]]


def pipeline_of(handler: Any) -> Pipeline:
    """The calls that take a batch through a handler; autograd is as the handler's own methods leave it."""
    if not isinstance(handler, Handler) or type(handler).handle is not Handler.handle:
        return _in_one_call(handler)
    return _in_three_stages(handler)


def _in_three_stages(handler: Handler) -> Pipeline:
    def run(bodies: list[Any], context: Context, watch: Watch) -> Sequence[Any]:
        batch = handler.preprocess(bodies)
        watch.preprocessed()
        outputs = handler.inference(batch)
        watch.inferred()
        results = checked(handler.postprocess(outputs), len(bodies), "postprocess")
        watch.postprocessed()
        return results

    return run


def _in_one_call(handler: Any) -> Pipeline:
    def run(bodies: list[Any], context: Context, watch: Watch) -> Sequence[Any]:
        watch.preprocessed()
        results = checked(handler.handle(bodies, context), len(bodies), "handle")
        watch.inferred()
        return results

    return run


def checked(results: Any, count: int, method: str) -> Sequence[Any]:
    """The results, if there is one for each of `count` requests; else raises an error that says what is wrong."""
    if inspect.iscoroutine(results):
        # Else Python warns in the log that nobody awaited it, which says less than the error does.
        results.close()
    if not isinstance(results, (list, tuple, torch.Tensor, np.ndarray)):
        raise TypeError(f"{method} returned {_described(results)}: it must return a list with one result per request")
    if isinstance(results, (torch.Tensor, np.ndarray)) and results.ndim == 0:
        raise ValueError(f"{method} returned one number for {_counted(count, 'request')}")
    if len(results) != count:
        raise ValueError(f"{method} returned {_counted(len(results), 'result')} for {_counted(count, 'request')}")
    return results  # type: ignore[return-value]


def _described(results: Any) -> str:
    if inspect.isawaitable(results) or inspect.isasyncgen(results):
        return "a coroutine (async methods are not supported)"
    if inspect.isgenerator(results):
        return "a generator (answers in parts are not supported)"
    return "None" if results is None else f"a {type(results).__name__}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"

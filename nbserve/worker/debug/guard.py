"""Runs the handler's calls while a debugger is attached: stops where it asked for, shows what raises. Worker."""

from __future__ import annotations

import contextlib
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nbserve.handler import Context
from nbserve.worker.debug.session import Session
from nbserve.worker.debug.targets import ConditionRaised, Target
from nbserve.worker.debug.worker_pdb import WorkerPdb
from nbserve.worker.runner import HANDLER_ERRORS
from nbserve.worker.stages import Pipeline, Watch
from nbserve.worker.tracebacks import summary_of

TOKEN_HEADER = "x-nbserve-debug"
COMPILED = (
    "torch.compile has compiled this function: variables may be missing, and stepping may leave it. "
    "A stop that is asked for (--at LINE) finds it as it is written"
)


class Guard:
    """A pipeline in the place of the handler's own, for as long as a debugger is attached."""

    def __init__(self, pipeline: Pipeline, session: Session, pdb: WorkerPdb) -> None:
        self.pipeline = pipeline
        self._session = session
        self._pdb = pdb

    def __call__(self, bodies: list[Any], context: Context, watch: Watch) -> Sequence[Any]:
        if self._pdb.is_over or not self._is_meant(context):
            return self.pipeline(bodies, context, watch)
        with as_written():
            return self._watched(lambda: self.pipeline(bodies, context, watch))

    def _is_meant(self, context: Context) -> bool:
        token = self._session.token
        if token is None:
            return True
        is_meant = any(request.headers.get(TOKEN_HEADER) == token for request in context.requests)
        self._session.has_met_token |= is_meant
        return is_meant

    def _watched(self, call: Callable[[], Sequence[Any]]) -> Sequence[Any]:
        try:
            self._start_tracing()
            return call()
        except HANDLER_ERRORS as error:
            sys.settrace(None)
            if self._shows():
                self._session.has_shown_error = True
                self._pdb.stop_after(error, "exception", summary_of(error), "the handler has raised: c lets it fail")
            raise
        finally:
            sys.settrace(None)

    def _start_tracing(self) -> None:
        session = self._session
        if session.target is not None and (session.repeat or not session.has_stopped):
            sys.settrace(_Stopper(session, self._pdb, session.target).trace)
        elif self._pdb.breaks:
            self._pdb.watch_breakpoints(sys._getframe())

    def _shows(self) -> bool:
        """Whether the debugger, who asked for this very request or has stopped in it, is to see its error."""
        session = self._session
        is_asked_for = session.token is not None or (session.verb == "stop" and session.has_stopped)
        return is_asked_for and not session.has_shown_error and not self._pdb.is_over


class _Stopper:
    """Traces one call of the handler until it comes to the target, and no frame that has no part in it."""

    def __init__(self, session: Session, pdb: WorkerPdb, target: Target) -> None:
        self._session = session
        self._pdb = pdb
        self._target = target

    def trace(self, frame: types.FrameType, event: str, arg: Any) -> Any:
        if self._pdb.is_over:
            sys.settrace(None)
            return None
        return self._trace_lines if self._target.wants(frame.f_code) else None

    def _trace_lines(self, frame: types.FrameType, event: str, arg: Any) -> Any:
        if event != "line":
            return self._trace_lines
        if self._target.line is None:
            # Python goes on to call what returned None: it takes this to end the tracing of a frame.
            del frame.f_trace
        elif frame.f_lineno != self._target.line:
            return self._trace_lines
        if not self._holds(frame):
            return None if self._target.line is None else self._trace_lines
        self._pdb.stop_at(frame, "stop")
        return self._pdb.trace_dispatch if sys.gettrace() is not None else None

    def _holds(self, frame: types.FrameType) -> bool:
        if self._session.condition is None:
            return True
        try:
            with self._pdb.evaluating():
                return self._session.condition.holds(frame) and not self._pdb.is_over
        except ConditionRaised as raised:
            self._session.note(str(raised))
            return False
        except KeyboardInterrupt:
            # The debugger left while it was evaluated.
            return False


def is_compiled(frame: types.FrameType) -> bool:
    """Whether torch.compile may have had a hand in what runs there: not in what a guard runs, as it is written."""
    codes = [each.f_code for each, _ in traceback.walk_stack(frame)]
    is_guarded = any(code is Guard._watched.__code__ for code in codes)
    return not is_guarded and any(code.co_filename.endswith("/torch/_dynamo/eval_frame.py") for code in codes)


@contextlib.contextmanager
def as_written() -> Iterator[None]:
    """Run what torch.compile compiled as it was written, so that stepping shows the user's lines."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    import torch

    set_stance = getattr(torch.compiler, "set_stance", None)
    with contextlib.nullcontext() if set_stance is None else set_stance("force_eager"):
        yield

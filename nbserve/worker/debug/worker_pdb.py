"""Where pdb stops in a worker, what it shows of the stack, and how the worker goes on. Runs in the worker."""

from __future__ import annotations

import bdb
import re
import sys
import threading
import types
from pathlib import Path
from typing import Any, Protocol

from nbserve.debugwire import Reason
from nbserve.errors import FailedInDebugger
from nbserve.worker.debug import stacks
from nbserve.worker.debug.link import Console
from nbserve.worker.debug.prompt import Prompt

_WORKER_FOLDER = f"{Path(__file__).parent.parent}/"
# Stepping passes through these, from one place of the user's code to the next; breakpoints in them hold all the same.
_PASSED = re.compile(r"(nbserve\.(worker|bundle)|torch|importlib|contextlib|functools|threading|concurrent)(\..*)?$")
_RUNNING = {"s", "step", "n", "next", "r", "return", "unt", "until", "j", "jump", "run", "restart"}
_GOING_ON = {"c", "cont", "continue", "fail"}


class Stops(Protocol):
    """Who decides what a stop means for the worker."""

    def enter(self, frame: types.FrameType, reason: Reason) -> None: ...

    def leave(self) -> None: ...

    def detach(self, pdb: WorkerPdb) -> None: ...

    def call_of(self, frame: types.FrameType) -> types.FrameType: ...


class WorkerPdb(Prompt):
    """The prompt of one debugger. One thread at a time is in it."""

    def __init__(self, console: Console, stops: Stops) -> None:
        reset_breakpoints()
        super().__init__(console)
        self.prompting: int | None = None
        self._stops = stops
        self._reason: Reason = "breakpoint"
        # Whether the prompt opens in the user's innermost frame, wherever below that it stopped.
        self._looks_for_user = False
        self._goes_on = False
        self._failure: FailedInDebugger | None = None
        # What `fail` said, for the session's last words.
        self.failed_with = ""
        self._skipped: dict[str, bool] = {}
        # bdb looks modules up only when there is something to look up.
        self.skip = {"nbserve.worker.*"}

    # Ways in: each is called in the thread that stops.

    def stop_at(self, frame: types.FrameType, reason: Reason, header: str = "") -> None:
        """A prompt here and now, whether or not anything is traced; afterwards on with what was asked for."""
        sys.settrace(None)
        self._begin(frame, reason)
        if header:
            self.message(header)
        self._looks_for_user = reason == "interrupt"
        self.interaction(frame, None)
        self._trace_on(frame)

    def stop_soon(self, frame: types.FrameType, reason: Reason) -> None:
        """A prompt at the next line of the user's."""
        self._begin(frame, reason)
        self.set_step()
        self._trace_on(frame)

    def watch_breakpoints(self, frame: types.FrameType) -> None:
        """Stop at breakpoints in what is called from here."""
        self._begin(frame, "breakpoint")
        self._set_stopinfo(self.botframe, None, -1)  # type: ignore[attr-defined]
        self._trace_on(frame)

    def stop_after(self, error: BaseException, reason: Reason, header: str, allowed: str = "") -> None:
        """A prompt where `error` was raised; nothing runs there any more, `allowed` says what goes on all the same."""
        sys.settrace(None)
        self._reason = reason
        self.reset()
        self.refused = (_RUNNING if allowed else _RUNNING | _GOING_ON, allowed or "nothing runs here: q leaves")
        found = handler_traceback(error)
        self._stops.enter(innermost(found), reason)
        self.message(header)
        self._looks_for_user = True
        try:
            self.interaction(None, found)
        finally:
            self.refused = (set(), "")

    def is_stepping_in(self, frame: types.FrameType) -> bool:
        """Whether the next line of this frame is going to be a stop anyway."""
        if self.is_over or sys.gettrace() is None or frame.f_trace is None:
            return False
        return self.stopframe is None or (self.stopframe is frame and self.stoplineno == 0)

    def _stops_nowhere(self) -> bool:
        return self.is_over or (self.stoplineno == -1 and not self.breaks)

    def _begin(self, frame: types.FrameType, reason: Reason) -> None:
        self.reset()
        self._reason = reason
        self.botframe = self._stops.call_of(frame)

    def _trace_on(self, frame: types.FrameType) -> None:
        """Trace this frame and its callers up to the call of the handler, if there is something to stop at."""
        if self._stops_nowhere():
            return
        each: types.FrameType | None = frame
        while each is not None:
            each.f_trace = self.trace_dispatch
            if each is self.botframe:
                break
            each = each.f_back
        sys.settrace(self.trace_dispatch)

    # What bdb asks

    def trace_dispatch(self, frame: types.FrameType, event: str, arg: Any) -> Any:
        if self.is_over:
            sys.settrace(None)
            self.let_go()
            return None
        if event == "return" and frame is self.botframe:
            sys.settrace(None)
            self.let_go()
            self._stops.leave()
            return None
        return super().trace_dispatch(frame, event, arg)

    def is_skipped_module(self, module_name: str | None) -> bool:
        if module_name is None:
            return False
        if module_name not in self._skipped:
            self._skipped[module_name] = _PASSED.match(module_name) is not None
        return self._skipped[module_name]

    def break_here(self, frame: types.FrameType) -> bool:
        try:
            with self.evaluating():
                return bool(super().break_here(frame)) and not self.is_over
        except (KeyError, IndexError, KeyboardInterrupt):
            # Another debugger has begun, and bdb's tables are its own now; or this one left while a condition ran on.
            return False

    def get_stack(self, f: types.FrameType | None, t: types.TracebackType | None) -> Any:
        """The stack less the frames of the worker around the handler; the current frame is the user's innermost."""
        stack, index = super().get_stack(f, t)
        shown = [entry for entry in stack if not _is_the_workers(entry[0])] or stack[-1:]
        index = len(shown) - 1
        if not self._looks_for_user:
            return shown, index
        innermost = (at for at in range(index, -1, -1) if stacks.is_user_code(shown[at][0].f_code.co_filename))
        return shown, next(innermost, index)

    # Stops

    def user_line(self, frame: types.FrameType) -> None:
        self._stops.enter(frame, self._reason)
        super().user_line(frame)
        self._carry_out()

    def interaction(self, frame: types.FrameType | None, traceback: Any) -> None:
        if frame is not None:
            self._stops.enter(frame, self._reason)
        before, self.prompting = self.prompting, threading.get_ident()
        try:
            super().interaction(frame, traceback)
        finally:
            self.prompting = before
            self._looks_for_user = False
            self._console.close_line()
        self._carry_out()

    def _carry_out(self) -> None:
        """What the last command asked for beside stepping."""
        goes_on, self._goes_on = self._goes_on, False
        failure, self._failure = self._failure, None
        if goes_on:
            self._reason = "breakpoint"
            self._stops.leave()
        if failure is not None or self._stops_nowhere():
            self.let_go()
        if failure is not None:
            raise failure

    def do_continue(self, arg: str) -> bool:
        """c(ont(inue))
        Let the request go on; only breakpoints that you set stop again.
        """
        self.set_continue()
        self._goes_on = True
        return True

    do_c = do_cont = do_continue

    def do_detach(self, arg: str) -> bool:
        """q(uit) | exit | detach | Ctrl-D
        Leave: breakpoints are cleared and the request goes on as if nobody had been here.
        """
        self.is_over = True
        self.cmdqueue = []
        self.breaks = {}
        self.set_continue()
        self._goes_on = True
        self._stops.detach(self)
        return True

    do_q = do_quit = do_exit = do_EOF = do_detach  # noqa: N815

    def do_fail(self, arg: str) -> bool:
        """fail [text]
        End this request with status 500 and the text; the worker goes on.
        """
        self.failed_with = arg or "ended in the debugger"
        self._failure = FailedInDebugger(self.failed_with)
        self.set_continue()
        self._goes_on = True
        return True

    commands_resuming = [*getattr(Prompt, "commands_resuming", ()), "do_detach", "do_fail"]


def reset_breakpoints() -> None:
    """Forget all breakpoints: bdb keeps them in class attributes, for all its instances, with running numbers."""
    bdb.Breakpoint.next = 1
    bdb.Breakpoint.bplist = {}
    bdb.Breakpoint.bpbynumber = [None]


def handler_traceback(error: BaseException) -> types.TracebackType:
    """The error's traceback from the handler's first frame on."""
    found = error.__traceback__
    assert found is not None, "it was raised"
    while found.tb_next is not None and _is_the_workers(found.tb_frame):
        found = found.tb_next
    return found


def innermost(traceback: types.TracebackType) -> types.FrameType:
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame


def _is_the_workers(frame: types.FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_WORKER_FOLDER)

"""pdb inside a worker, over a socket: it stops at once, detaches instead of quitting, and knows cells. Worker."""

from __future__ import annotations

import bdb
import code
import codeop
import contextlib
import ctypes
import linecache
import os
import pdb
import re
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from nbserve.debugwire import Reason
from nbserve.errors import FailedInDebugger
from nbserve.worker.debug import completion, stacks
from nbserve.worker.debug.link import Console

_WORKER_FOLDER = os.path.dirname(os.path.dirname(__file__)) + "/"  # noqa: PTH120
# Stepping passes through these, from one place of the user's code to the next; breakpoints in them hold all the same.
_PASSED = re.compile(r"(nbserve\.(worker|bundle)|torch|importlib|contextlib|functools|threading|concurrent)(\..*)?$")
_LEAVING = ("q", "quit", "exit", "EOF", "detach")
_RUNNING = {"s", "step", "n", "next", "r", "return", "unt", "until", "j", "jump", "run", "restart"}
_GOING_ON = {"c", "cont", "continue", "fail"}


class Stops(Protocol):
    """Who decides what a stop means for the worker."""

    def enter(self, frame: types.FrameType, reason: Reason) -> None: ...

    def leave(self) -> None: ...

    def detach(self) -> None: ...

    def call_of(self, frame: types.FrameType) -> types.FrameType: ...


class WorkerPdb(pdb.Pdb):
    """The prompt of one debugger. One thread at a time is in it."""

    def __init__(self, console: Console, stops: Stops) -> None:
        reset_breakpoints()
        super().__init__(stdin=console, stdout=console, nosigint=True, readrc=False)  # type: ignore[arg-type]
        self.use_rawinput = False
        self.is_over = False
        self.is_evaluating = False
        self.prompting: int | None = None
        self._console = console
        self._stops = stops
        self._reason: Reason = "breakpoint"
        # Commands that make no sense here, and what is said instead.
        self._refused: tuple[set[str], str] = (set(), "")
        # Whether the prompt opens in the user's innermost frame, wherever below that it stopped.
        self._looks_for_user = False
        self._goes_on = False
        self._failure: FailedInDebugger | None = None
        self._skipped: dict[str, bool] = {}
        # bdb looks modules up only when there is something to look up.
        self.skip = {"nbserve.worker.*"}
        console.complete = self._complete

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
        self._refused = (_RUNNING if allowed else _RUNNING | _GOING_ON, allowed or "nothing runs here: q leaves")
        found = handler_traceback(error)
        self._stops.enter(innermost(found), reason)
        self.message(header)
        self._looks_for_user = True
        try:
            self.interaction(None, found)
        finally:
            self._refused = (set(), "")

    def is_stepping_in(self, frame: types.FrameType) -> bool:
        """Whether the next line of this frame is going to be a stop anyway."""
        if self.is_over or sys.gettrace() is None or frame.f_trace is None:
            return False
        return self.stopframe is None or (self.stopframe is frame and self.stoplineno == 0)

    def _begin(self, frame: types.FrameType, reason: Reason) -> None:
        self.reset()
        self._reason = reason
        self.botframe = self._stops.call_of(frame)

    def _trace_on(self, frame: types.FrameType) -> None:
        """Trace this frame and its callers up to the call of the handler, if there is something to stop at."""
        if self.is_over or (self.stoplineno == -1 and not self.breaks):
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
            return None
        if event == "return" and frame is self.botframe:
            sys.settrace(None)
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
            return bool(super().break_here(frame))
        except (KeyError, IndexError):
            # Another debugger has begun, and bdb's tables are its own now.
            return False

    def canonic(self, filename: str) -> str:
        return label_of(filename) or super().canonic(filename)

    def lookupmodule(self, filename: str) -> str | None:
        return label_of(filename) or super().lookupmodule(filename)

    def lineinfo(self, identifier: str) -> Any:
        """A method can be named without its class."""
        file = self.defaultFile()
        wanted = re.compile(rf"\s*def\s+{re.escape(identifier.strip().rpartition('.')[2])}\s*[(]")
        for number, line in enumerate(linecache.getlines(file), 1):
            if wanted.match(line):
                return identifier, file, number
        return super().lineinfo(identifier)

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
        if failure is not None:
            raise failure

    # Commands

    def onecmd(self, line: str) -> bool:
        if line == "EOF" and self.commands_defining:
            return True
        refused, text = self._refused
        if not self.commands_defining and self.parseline(line)[0] in refused:
            self.error(text)
            return False
        with self._shown_here():
            return self._obey(line)

    def _obey(self, line: str) -> bool:
        if line.rstrip().endswith("?") and line.strip("? ") and not self.commands_defining:
            return self._show_completions(line.strip().rstrip("?"))
        try:
            self.is_evaluating = True
            return self.do_detach("") if self.is_over else bool(super().onecmd(line))
        except (Exception, KeyboardInterrupt) as error:
            # A command that breaks must not break the request.
            self.error(traceback.format_exception_only(type(error), error)[-1].strip())
            return False
        finally:
            self.is_evaluating = False

    def _show_completions(self, text: str) -> bool:
        start = len(text) - len(re.split(r"[\s(\[{,=!]", text)[-1])
        self.message("  ".join(self._complete(text, start, len(text))) or f"nothing begins with {text}")
        return False

    def _complete(self, line: str, begin: int, end: int) -> list[str]:
        return completion.completions(self, line, begin, end)

    def default(self, line: str) -> None:
        """Run a statement in the current frame, reading on while it is incomplete."""
        source = line[1:] if line[:1] == "!" else line
        try:
            compiled = self._compiled(source.strip() if "\n" not in source else source)
            if compiled is None:
                return
            save = sys.displayhook
            sys.displayhook = self.displayhook
            try:
                exec(compiled, self._names(source), self._locals())
            finally:
                sys.displayhook = save
                self._keep_locals()
        except BaseException:
            self._error_exc()  # type: ignore[attr-defined]

    def _compiled(self, source: str) -> types.CodeType | None:
        """The statement's code; None when the debugger left before its end."""
        while (compiled := codeop.compile_command(source, "<stdin>", "single")) is None:
            self.stdout.write("...   ")
            line = self.stdin.readline()
            if not line:
                return None
            source += "\n" + line.rstrip("\r\n")
        return compiled

    def _getval(self, arg: str) -> Any:
        try:
            return eval(arg, self._names(arg), self._locals())
        except BaseException:
            self._error_exc()  # type: ignore[attr-defined]
            raise

    def _names(self, source: str) -> dict[str, Any]:
        """The globals for an evaluation: with the locals among them, as comprehensions and lambdas see nothing else.

        A statement that says `global` gets the real ones.
        """
        if re.search(r"\bglobal\b", source) or self._locals() is self._frame.f_globals:
            return self._frame.f_globals
        return {**self._frame.f_globals, **self._locals()}

    def _locals(self) -> Any:
        # Read anew each time: before Python 3.13 only what was read since can be written back.
        return self._frame.f_locals

    @property
    def _frame(self) -> types.FrameType:
        assert self.curframe is not None
        return self.curframe

    def _keep_locals(self) -> None:
        """Write assigned locals into the frame at once. Before Python 3.13 that happens only on a way out of a trace
        function, and for the traced frame alone."""
        if sys.version_info < (3, 13):
            ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(self.curframe), ctypes.c_int(1))

    def preloop(self) -> None:
        """Show displayed expressions that changed. Comparing tensors gives a tensor, which is no answer."""
        shown = getattr(self, "displaying", {}).get(self.curframe) or {}
        for expression, old in list(shown.items()):
            new = self._getval_except(expression)
            if new is not old and _differ(new, old):
                shown[expression] = new
                self.message(f"display {expression}: {new!r}  [old: {old!r}]")

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
        self._stops.detach()
        return True

    do_q = do_quit = do_exit = do_EOF = do_detach  # noqa: N815

    def do_fail(self, arg: str) -> bool:
        """fail [text]
        End this request with status 500 and the text; the worker goes on.
        """
        self._failure = FailedInDebugger(arg or "ended in the debugger")
        self.set_continue()
        self._goes_on = True
        return True

    def do_interact(self, arg: str) -> None:
        """interact
        A Python prompt with the names of this frame; exit() comes back. The frame itself stays as it is.
        """
        names = {**self._frame.f_globals, **self._locals()}
        _Interpreter(names, self._console).interact("Python with this frame's names; exit() goes back to pdb", "")

    def do_debug(self, arg: str) -> None:
        """debug code
        Step through an expression or a statement in a debugger of its own.
        """
        outer = sys.gettrace()
        sys.settrace(None)
        inner = pdb.Pdb(stdin=self._console, stdout=self._console, nosigint=True, readrc=False)  # type: ignore[arg-type]
        inner.use_rawinput = False
        inner.prompt = f"({self.prompt.strip()}) "
        inner.canonic = self.canonic  # type: ignore[method-assign]
        self.message("ENTERING RECURSIVE DEBUGGER")
        try:
            sys.call_tracing(inner.run, (arg, self._frame.f_globals, self._locals()))
        except Exception:
            self._error_exc()  # type: ignore[attr-defined]
        finally:
            sys.settrace(outer)
        self.message("LEAVING RECURSIVE DEBUGGER")

    def do_run(self, arg: str) -> None:
        """run
        There is no program to start again here.
        """
        self.error("a request cannot be started again from here: send it again, or attach with --replay")

    do_restart = do_run

    def do_help(self, arg: str) -> bool | None:
        done = super().do_help(arg)
        if not arg:
            self.message("fail [text] ends this request with status 500; q or detach leaves, and the request goes on;")
            self.message("NAME? lists what may follow, such as self.?")
        return done

    do_h = do_help
    commands_resuming = [*pdb.Pdb.commands_resuming, "do_detach", "do_fail"]

    @contextlib.contextmanager
    def _shown_here(self) -> Iterator[None]:
        """What this thread prints and reads goes through the debugger's console."""
        streams = sys.stdin, sys.stdout
        sys.stdin = self._console
        sys.stdout = _Diverted(streams[1], self._console)
        try:
            yield
        finally:
            sys.stdin, sys.stdout = streams


class _Diverted:
    """Standard output, but for one thread, which writes to a console."""

    def __init__(self, stream: Any, console: Console) -> None:
        self._stream = stream
        self._console = console
        self._thread = threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._console if threading.get_ident() == self._thread else self._stream, name)


class _Interpreter(code.InteractiveConsole):
    """Python's own prompt on a debugger's console."""

    def __init__(self, names: dict[str, Any], console: Console) -> None:
        # As the only namespace: functions that are written here see the frame's locals too.
        super().__init__(names, "<interact>")
        self._console = console

    def raw_input(self, prompt: str = "") -> str:
        self._console.write(prompt)
        line = self._console.readline()
        if not line or line.strip() in ("exit", "quit", "exit()", "quit()"):
            raise EOFError
        return line.rstrip("\n")

    def write(self, data: str) -> None:
        self._console.write(data)

    def runcode(self, code: types.CodeType) -> None:
        try:
            super().runcode(code)
        except SystemExit:
            self.showtraceback()


def reset_breakpoints() -> None:
    """Forget all breakpoints: bdb keeps them in class attributes, for all its instances, with running numbers."""
    bdb.Breakpoint.next = 1
    bdb.Breakpoint.bplist = {}
    bdb.Breakpoint.bpbynumber = [None]


def label_of(filename: str) -> str | None:
    """The cell that is called so, in full or `cell 3` for short. Only linecache knows cells: they are no files."""
    if filename.startswith(("/", "<")):
        return None
    labels = [name for name, entry in list(linecache.cache.items()) if len(entry) == 4 and entry[1] is None]
    if filename in labels:
        return filename
    return next((label for label in labels if label.lower().endswith(f", {filename.lower()}")), None)


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


def _differ(new: Any, old: Any) -> bool:
    try:
        return bool(new != old)
    except Exception:
        return repr(new) != repr(old)


_Command = Callable[[str], bool]

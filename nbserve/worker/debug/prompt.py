"""pdb's commands as they are in a worker: over a socket, in cells, and never in the way of the request. Worker."""

from __future__ import annotations

import builtins
import code
import codeop
import contextlib
import ctypes
import linecache
import pdb
import re
import sys
import threading
import traceback
import types
from collections.abc import Iterator
from typing import Any

from nbserve.worker.debug import completion
from nbserve.worker.debug.link import Console
from nbserve.worker.debug.stacks import cell_labels

_MISSING: Any = object()


class Prompt(pdb.Pdb):
    """What can be typed and how it is carried out; `WorkerPdb` adds where it stops and how it goes on."""

    def __init__(self, console: Console) -> None:
        super().__init__(stdin=console, stdout=console, nosigint=True, readrc=False)  # type: ignore[arg-type]
        self.use_rawinput = False
        self.is_over = False
        # The thread in which something of the user's is evaluated for the debugger, which may never come back.
        self.evaluating_in: int | None = None
        # Newer releases of pdb keep `$_frame` and the like in the globals of the code that it stopped in.
        self._with_variables: dict[int, dict[str, Any]] = {}
        # Commands that make no sense here, and what is said instead.
        self.refused: tuple[set[str], str] = (set(), "")
        self._console = console
        console.complete = self._complete

    def onecmd(self, line: str) -> bool:
        if line == "EOF" and self.commands_defining:
            return True
        refused, text = self.refused
        if not self.commands_defining and self.parseline(line)[0] in refused:
            self.error(text)
            return False
        with self._shown_here():
            return self._obey(line)

    def _obey(self, line: str) -> bool:
        if line.rstrip().endswith("?") and line.strip("? ") and not self.commands_defining:
            return self._show_completions(line.strip().rstrip("?"))
        try:
            with self.evaluating():
                return bool(self.do_EOF("") if self.is_over else super().onecmd(line))
        except BaseException as error:
            # A command that breaks must not break the request.
            self.error(traceback.format_exception_only(type(error), error)[-1].strip())
            return False

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """What runs here gets a KeyboardInterrupt when the debugger leaves, and has to catch it."""
        before, self.evaluating_in = self.evaluating_in, threading.get_ident()
        try:
            yield
        finally:
            self.evaluating_in = before

    def is_evaluating(self) -> bool:
        return self.evaluating_in is not None and not self._console.is_waiting

    def _cmdloop(self) -> None:
        # Displays, aliases and completions are evaluated between the commands.
        with contextlib.suppress(KeyboardInterrupt), self.evaluating():
            super()._cmdloop()

    def let_go(self) -> None:
        """Keep nothing of the request alive once nothing of it is traced: its frames hold all its tensors."""
        self.forget()
        self.botframe: Any = None
        self._set_stopinfo(None, None, -1)  # type: ignore[attr-defined]
        self.displaying: dict[Any, Any] = {}
        self.curframe_locals: Any = None
        for names in self._with_variables.values():
            names.pop("__pdb_convenience_variables", None)
        self._with_variables = {}

    def set_convenience_variable(self, frame: types.FrameType, name: str, value: Any) -> None:
        super().set_convenience_variable(frame, name, value)  # type: ignore[misc]
        self._with_variables[id(frame.f_globals)] = frame.f_globals

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
        # Newer releases of pdb have a method of its own for this, which they call when it is time.
        if not hasattr(pdb.Pdb, "_show_display"):
            self._show_display()

    def _show_display(self) -> None:
        """Show displayed expressions that changed. Comparing tensors gives a tensor, which is no answer."""
        shown = getattr(self, "displaying", {}).get(self.curframe) or {}
        for expression, old in list(shown.items()):
            new = self._getval_except(expression)
            if new is not old and _differ(new, old):
                shown[expression] = new
                self.message(f"display {expression}: {_shown(new)}  [old: {_shown(old)}]")

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

    def do_interact(self, arg: str) -> None:
        """interact
        A Python prompt with the names of this frame; exit() comes back. The frame itself stays as it is.
        """
        self.message("Python with this frame's names; exit() goes back to pdb")
        _Interpreter({**self._frame.f_globals, **self._locals()}, self._console).run()

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
            inner.reset()
            inner.forget()
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

    @contextlib.contextmanager
    def _shown_here(self) -> Iterator[None]:
        """What this thread prints and reads goes through the debugger's console."""
        if isinstance(sys.stdout, _Diverted) and sys.stdout.is_for(self._console):
            yield
            return
        # Not what another debugger's thread put there, which may be gone before this one.
        output = sys.stdout.stream if isinstance(sys.stdout, _Diverted) else sys.stdout
        keyboard: Any = sys.__stdin__ if isinstance(sys.stdin, Console) else sys.stdin
        mine: Any = _Diverted(output, self._console)
        sys.stdin, sys.stdout = self._console, mine
        try:
            yield
        finally:
            if sys.stdout is mine:
                sys.stdout = output
            if sys.stdin is self._console:
                sys.stdin = keyboard


class _Diverted:
    """Standard output, but for one thread, which writes to a console."""

    def __init__(self, stream: Any, console: Console) -> None:
        self.stream = stream
        self._console = console
        self._thread = threading.get_ident()

    def is_for(self, console: Console) -> bool:
        return console is self._console and threading.get_ident() == self._thread

    def __getattr__(self, name: str) -> Any:
        return getattr(self._console if threading.get_ident() == self._thread else self.stream, name)


class _Interpreter(code.InteractiveConsole):
    """Python's own prompt on a debugger's console."""

    def __init__(self, names: dict[str, Any], console: Console) -> None:
        # As the only namespace: functions that are written here see the frame's locals too.
        super().__init__(names, "<interact>")
        self._console = console

    def run(self) -> None:
        """Until the end, in place of `interact`: that one shows the prompts in sys.ps1, or sets them for everybody."""
        before = vars(builtins).get("_", _MISSING)
        try:
            is_continued = False
            while (line := self._line("... " if is_continued else ">>> ")) is not None:
                is_continued = self.push(line)
        finally:
            _forget_results(before)

    def _line(self, prompt: str) -> str | None:
        self._console.write(prompt)
        line = self._console.readline()
        is_end = not line or line.strip() in ("exit", "quit", "exit()", "quit()")
        return None if is_end else line.rstrip("\n")

    def write(self, data: str) -> None:
        self._console.write(data)

    def runcode(self, code: types.CodeType) -> None:
        try:
            super().runcode(code)
        except SystemExit:
            self.showtraceback()


def _forget_results(before: Any) -> None:
    """Undo what Python's prompt keeps for its user: the last value and the last error, with all that they refer to."""
    for name in ("last_exc", "last_type", "last_value", "last_traceback"):
        vars(sys).pop(name, None)
    vars(builtins).pop("_", None)
    if before is not _MISSING:
        vars(builtins)["_"] = before


def label_of(filename: str) -> str | None:
    """The cell that is called so, in full or `cell 3` for short."""
    labels = cell_labels()
    if filename in labels:
        return filename
    return next((label for label in labels if label.lower().endswith(f", {filename.lower()}")), None)


def _differ(new: Any, old: Any) -> bool:
    try:
        return bool(new != old)
    except Exception:
        return _shown(new) != _shown(old)


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:
        return f"** repr raised {type(error).__name__} **"

"""Debugging in a terminal: lines with history and Tab, Ctrl-C as in a shell."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from nbserve.debugging.console import Completer
from nbserve.errors import DebugError

try:
    import readline
except ImportError:  # A Python that was built without it: no history, no Tab.
    readline = None  # type: ignore[assignment]

# Those of pdb: an attribute is completed together with what stands before its dot.
DELIMITERS = " \t\n`@#%^&*()=+[{]}\\|;:'\",<>?"


class TerminalConsole:
    """Standard input and output."""

    def __init__(self) -> None:
        self._completer: Completer | None = None
        self._items: list[str] = []
        self._is_line_begun = False

    def complete_with(self, completer: Completer) -> None:
        self._completer = completer

    def write(self, text: str) -> None:
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()
            self._is_line_begun = not text.endswith("\n")

    def note(self, text: str) -> None:
        self.write("\n" * self._is_line_begun + f"-- {text}\n")

    def read_line(self, prompt: str) -> str:
        self._is_line_begun = False
        while True:
            try:
                with self._tab_completes():
                    return input(prompt)
            except KeyboardInterrupt:
                if not sys.stdin.isatty():
                    raise
                self.write("\n")
            except EOFError:
                self.write("\n")
                raise
            except NotImplementedError:
                # A kernel whose front end has no input, such as nbclient.
                raise DebugError('nobody can be asked here: say what to do with commands="w; p x; c"') from None

    @contextmanager
    def _tab_completes(self) -> Iterator[None]:
        if readline is None or self._completer is None:
            yield
            return
        before = readline.get_completer(), readline.get_completer_delims()
        readline.set_completer(self._complete)
        readline.set_completer_delims(DELIMITERS)
        is_libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")
        try:
            yield
        finally:
            readline.set_completer(before[0])
            readline.set_completer_delims(before[1])

    def _complete(self, text: str, state: int) -> str | None:
        if state == 0 and self._completer is not None:
            self._items = self._completer(readline.get_line_buffer(), readline.get_begidx(), readline.get_endidx())
        return self._items[state] if state < len(self._items) else None

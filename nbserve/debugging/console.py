"""Where debugging is shown and its lines come from: a person's console, or a list of commands."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

Completer = Callable[[str, int, int], list[str]]


class Console(Protocol):
    """Where a person debugs. EOFError and KeyboardInterrupt out of `read_line` detach.

    `write` takes the debugger's output, `note` what is told beside it. A console that can complete has a method
    `complete_with(completer)` too, called once with a function of (line, begin, end).
    """

    def write(self, text: str) -> None: ...

    def read_line(self, prompt: str) -> str: ...

    def note(self, text: str) -> None: ...


class Shown(str):
    """What a session showed; at a prompt and in a cell it looks as it did."""

    def __repr__(self) -> str:
        return str(self)


class Silent:
    """Shows nothing, for programs that want the text at the end."""

    def write(self, text: str) -> None:
        pass

    def read_line(self, prompt: str) -> str:
        raise EOFError

    def note(self, text: str) -> None:
        pass


class Transcript:
    """A console that keeps what it shows."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._parts: list[str] = []

    @property
    def text(self) -> Shown:
        return Shown("".join(self._parts))

    def write(self, text: str) -> None:
        self._parts.append(text)
        self._console.write(text)

    def read_line(self, prompt: str) -> str:
        line = self._console.read_line(prompt)
        self._parts.append(f"{prompt}{line}\n")
        return line

    def note(self, text: str) -> None:
        break_before = "\n" if self._parts and not self._parts[-1].endswith("\n") else ""
        self._parts.append(f"{break_before}-- {text}\n")
        self._console.note(text)

    def complete_with(self, completer: Completer) -> None:
        if (offer := getattr(self._console, "complete_with", None)) is not None:
            offer(completer)


class Script:
    """Commands in a person's place, shown as if they had been typed; EOFError when they have run out."""

    def __init__(self, console: Console, commands: Iterable[str]) -> None:
        self._console = console
        self._commands = deque(commands)
        self._lines: deque[str] = deque()

    def is_spent(self) -> bool:
        return not (self._commands or self._lines)

    def write(self, text: str) -> None:
        self._console.write(text)

    def read_line(self, prompt: str) -> str:
        line = self._next(is_continued=prompt.lstrip().startswith("..."))
        self._console.write(f"{prompt}{line}\n")
        return line

    def note(self, text: str) -> None:
        self._console.note(text)

    def _next(self, is_continued: bool) -> str:
        if not self._lines and not is_continued:
            if not self._commands:
                raise EOFError
            self._lines.extend(self._commands.popleft().split("\n"))
        # An empty line ends a statement of several lines.
        return self._lines.popleft() if self._lines else ""


def split_commands(text: str) -> list[str]:
    """The commands of `p x; w; c`: cut at `;` and at line ends, but not in quotes and brackets."""
    return [command for piece in _pieces(text) if (command := piece.strip())]


def _pieces(text: str) -> Iterator[str]:
    begin = depth = at = 0
    quote = ""
    while at < len(text):
        char = text[at]
        if quote:
            if char == "\\":
                at += 1
            elif text.startswith(quote, at):
                at += len(quote) - 1
                quote = ""
        elif char in "'\"":
            quote = char * 3 if text.startswith(char * 3, at) else char
            at += len(quote) - 1
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth = max(0, depth - 1)
        elif char in ";\n" and not depth:
            yield text[begin:at]
            begin = at + 1
        at += 1
    yield text[begin:]

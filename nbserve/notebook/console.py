"""The debugger's console in a cell: output is printed text, prompts are `input()`. Runs in the kernel."""

from __future__ import annotations

import sys

from IPython.core.error import StdinNotImplementedError
from IPython.core.interactiveshell import InteractiveShell

from nbserve.errors import DebugError


class NoInput(DebugError):
    """The front end gives the kernel no input, as nbclient and papermill do."""


class KernelConsole:
    """What `nbserve.debugging` talks to; an interrupt or the end of input at the prompt detaches."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._is_line_begun = False
        self.was_interrupted = False

    def write(self, text: str) -> None:
        if text:
            sys.stdout.write(text)
            self._is_line_begun = not text.endswith("\n")

    def note(self, text: str) -> None:
        self.write("\n" * self._is_line_begun + f"-- {text}\n")

    def read_line(self, prompt: str) -> str:
        self._is_line_begun = False
        try:
            return input(prompt)
        except StdinNotImplementedError:
            raise NoInput(without_input(self._name)) from None
        except KeyboardInterrupt:
            self.was_interrupted = True
            raise


def without_input(name: str) -> str:
    return (
        "this front end has no input for a prompt, as nbclient and papermill have none; "
        f'say what to do there with --commands, such as: %serve debug {name} --commands "w; p xs; c"'
    )


def has_input(shell: InteractiveShell) -> bool:
    """Whether the cell that runs can ask for input; kernels know it from the request that runs the cell."""
    kernel = getattr(shell, "kernel", None)
    return kernel is None or bool(getattr(kernel, "_allow_stdin", True))

"""How an error looks in a notebook: the user's lines or one clear text, never a frame of ours. Runs in the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from IPython.core.interactiveshell import InteractiveShell

from nbserve.errors import NbserveError, StartError

Raised = TypeVar("Raised", bound=BaseException)


@contextmanager
def told_shortly(shell: InteractiveShell) -> Iterator[None]:
    """Errors of ours and interrupts that leave this block fail the cell with their text alone."""
    try:
        yield
    except (NbserveError, KeyboardInterrupt) as error:
        if not hasattr(error, "_render_traceback_"):
            show_below(shell, error, error.traceback_text if isinstance(error, StartError) else "")
        raise


def render_as(error: Raised, lines: list[str]) -> Raised:
    """The same error, shown by IPython as these lines instead of its own formatting."""
    error._render_traceback_ = lambda *_: lines  # type: ignore[attr-defined]
    return error


def show_below(shell: InteractiveShell, error: Raised, traceback_text: str) -> Raised:
    """The same error, shown as its own text below a traceback from another process."""
    text: list[str] = shell.InteractiveTB.get_exception_only(type(error), error)
    return render_as(error, [traceback_text.rstrip("\n"), "", *text] if traceback_text else text)

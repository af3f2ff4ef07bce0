"""Progress of a start: one display updated in place, plain lines in a terminal. Runs in the kernel."""

from __future__ import annotations

from IPython.core.interactiveshell import InteractiveShell
from IPython.display import DisplayHandle, display

from nbserve.notebook.status import Shown, note


class ProgressLine:
    """Call it with a text for each step, then `finish` with what takes the line's place; notes outlast the line."""

    def __init__(self, shell: InteractiveShell, name: str) -> None:
        self._name = name
        self.updates_in_place = hasattr(shell, "kernel")
        self._handle: DisplayHandle | None = None
        self.notes: list[str] = []

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self("did not start")

    def __call__(self, text: str) -> None:
        self._show(note(self._name, text))

    def finish(self, shown: Shown) -> None:
        self._show(shown)

    def keep(self, text: str) -> None:
        """Show a text that the final display repeats."""
        self.notes.append(text)
        self(text)

    def _show(self, shown: Shown) -> None:
        if self._handle is not None:
            self._handle.update(shown)
        elif self.updates_in_place:
            self._handle = display(shown, display_id=True)
        else:
            display(shown)

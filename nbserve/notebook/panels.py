"""The panels of this kernel: one for each endpoint, however often it is shown. Runs in the kernel."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from IPython.core.getipython import get_ipython
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display

from nbserve.notebook import live
from nbserve.notebook.console import has_input
from nbserve.notebook.live import Live
from nbserve.notebook.status import Shown, card
from nbserve.notebook.twin import Twin
from nbserve.verbs import Endpoint

if TYPE_CHECKING:
    from nbserve.notebook.panel import Panel

# A server and an endpoint of it.
Key = tuple[str, str]


class Panels:
    """Knows the panel of each endpoint, and the `%%serve` line that its settings belong to."""

    def __init__(self) -> None:
        self._panels: dict[Key, Panel] = {}
        self._twins: dict[Key, Twin] = {}
        self._lines: dict[str, str] = {}

    def show(self, shell: InteractiveShell | None, endpoint: Endpoint) -> None:
        """Show what there is to see of the endpoint, and follow it where the front end can."""
        now = live.now(endpoint)
        shown = told(endpoint, now)
        if not can_show(shell):
            display(shown)
            return
        panel = self._panel(endpoint)
        panel.renew(now, self._lines.get(endpoint.name, endpoint.name), shown.text)
        display(panel)
        # Right below it: there the panel finds it, and hides it while it lives.
        self._twin(endpoint).show(now, _later(shell))

    def show_picture(self, shell: InteractiveShell, endpoint: Endpoint) -> None:
        """Show what stays of a panel, where there will never be one."""
        self._twin(endpoint).show(live.now(endpoint), _later(shell))

    def keep_line(self, name: str, line: str) -> None:
        """Remember what stood behind `%%serve`: the panel says how to write it with the settings as tuned."""
        self._lines[name] = line.strip()

    def leave_pictures(self) -> None:
        """Draw none any more: the magics are taken away."""
        for twin in self._twins.values():
            twin.leave()

    def _twin(self, endpoint: Endpoint) -> Twin:
        return self._twins.setdefault(_key(endpoint), Twin(endpoint))

    def _panel(self, endpoint: Endpoint) -> Panel:
        from nbserve.notebook.panel import Panel

        key = _key(endpoint)
        panel = self._panels.get(key)
        if panel is None or not panel.is_open:
            panel = self._panels[key] = Panel(endpoint)
        return panel


@functools.cache
def panels() -> Panels:
    """Those of this process: loaded again, the magics find the panels of detached servers as they left them."""
    return Panels()


def show(endpoint: Endpoint) -> None:
    """What `Endpoint.panel` does; in a program without IPython's shell it prints."""
    panels().show(get_ipython(), endpoint)


def can_show(shell: InteractiveShell | None) -> bool:
    """Whether panels can be made here: in a kernel, with the libraries of the extra `jupyter`."""
    if not hasattr(shell, "kernel"):
        return False
    try:
        import anywidget  # noqa: F401
    except ImportError:
        return False
    return True


def _later(shell: InteractiveShell | None) -> Callable[[Callable[[], None]], None]:
    """How to show what changes after the running cell.

    It belongs to this cell, whatever runs then; but who only executes notebooks takes no outputs of cells before.
    """
    context = contextvars.copy_context() if shell is not None and has_input(shell) else contextvars.Context()
    return context.run


def _key(endpoint: Endpoint) -> Key:
    return endpoint.server.server_id, endpoint.name


def told(endpoint: Endpoint, now: Live) -> Shown:
    """The card and the newest figures, for readers without widgets."""
    return card(now.endpoint, endpoint.curl(), figures=live.words(now.sample))

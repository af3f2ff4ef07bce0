"""The magics `%%serve` and `%serve`, and loading them. Runs in the kernel."""

from __future__ import annotations

import time
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from IPython.display import display

from nbserve.config import EndpointConfig
from nbserve.errors import NbserveError
from nbserve.notebook import attend, cell, export, options, profile, tune, verbs
from nbserve.notebook.console import has_input
from nbserve.notebook.failure import told_shortly
from nbserve.notebook.panels import can_show, panels
from nbserve.notebook.progress import ProgressLine
from nbserve.notebook.status import Shown, card
from nbserve.notebook.watch import Holds, watches
from nbserve.options import settings_of
from nbserve.serving import Order, deploy, home
from nbserve.verbs import Endpoint


@magics_class
class ServeMagics(Magics):
    """`%%serve` and `%serve` in one shell."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self._watches = watches()

    @cell_magic("serve")
    def serve_cell(self, line: str, body: str) -> None:
        """Serve the handler that the cell defines: %%serve NAME [options]; %%serve --help lists them."""
        tokens = options.split(line)
        if options.wants_help(tokens):
            return display(verbs.as_text(options.cell_parser().format_help()))
        values = options.cell_parser().parse(tokens)
        with told_shortly(self.shell):
            settings = settings_of(values, EndpointConfig)
            EndpointConfig().changed(settings)
            ran = cell.run(self.shell, line, body)
            handler = cell.find_handler(ran, self.shell.user_ns)
            if ran.value is not None and ran.value is not handler:
                display(ran.value)
            source = (f"%%serve {line}\n{body}", cell.label(self.shell))
            order = Order(handler, values.name, self.shell.user_ns, settings, values.port, values.detach, source)
            panels().keep_line(values.name, line)
            self._deploy(order, values.panel and can_show(self.shell))
        return None

    @no_var_expand
    @line_magic("serve")
    def serve_line(self, line: str) -> Any:
        """Work on what is served: %serve --help lists the verbs."""
        with told_shortly(self.shell):
            return verbs.run(verbs.Face(self.shell, home(), self._watches), line)

    def _deploy(self, order: Order, has_panel: bool) -> None:
        began = time.monotonic()
        with ProgressLine(self.shell, order.name) as progress:
            attended = attend.Starting(self.shell, order.name, progress)
            endpoint = deploy(order, home(), attended, progress.keep)
            is_watched = has_panel and has_input(self.shell)
            draw = Drawn(endpoint, progress, time.monotonic() - began, is_watched)
            draw([])
        if progress.updates_in_place:
            self._watches.of(endpoint).draw(draw)
        if is_watched:
            panels().show(self.shell, endpoint)
        elif has_panel:
            # Notebooks that are only executed, as by papermill and nbclient, have no use for widgets.
            panels().show_picture(self.shell, endpoint)


class Drawn:
    """The card of a cell, in the place of its progress; drawn again when workers are held and when they go on."""

    def __init__(self, endpoint: Endpoint, progress: ProgressLine, took_s: float, is_short: bool) -> None:
        self._endpoint = endpoint
        self._progress = progress
        self._took_s = took_s
        self._is_short = is_short
        self._as_served = self._card([])

    def __call__(self, held: Holds) -> None:
        self._progress.finish(self._card(held) if held else self._as_served)

    def _card(self, held: Holds) -> Shown:
        endpoint = self._endpoint
        notes = self._progress.notes
        return card(endpoint.stats(), endpoint.curl(), self._took_s, notes, held, is_short=self._is_short)


def allow_help_alone(lines: list[str]) -> list[str]:
    """An input transform: `%%serve --help` needs no cell below it, which IPython would ask for."""
    if len(lines) == 1 and lines[0].startswith("%%serve") and options.wants_help(lines[0].split()):
        return [lines[0].rstrip("\n") + "\n", "\n"]
    return lines


def load(shell: InteractiveShell) -> None:
    """Register the magics and start the server, still empty, in the background: its nursery imports torch meanwhile."""
    shell.register_magics(ServeMagics)
    shell.input_transformers_cleanup.insert(0, allow_help_alone)
    for kind, show in (("text/html", _endpoint_html), ("text/plain", _endpoint_text)):
        shell.display_formatter.formatters[kind].for_type(Endpoint, show)
    profile.register(shell)
    tune.register(shell)
    export.register(shell)
    try:
        home().start()
    except NbserveError:
        # Told at first use, which starts it again and fails the same way.
        return


def unload(shell: InteractiveShell) -> None:
    """Take the magics away and stop the server."""
    shell.input_transformers_cleanup.remove(allow_help_alone)
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("serve", None)
    for kind in ("text/html", "text/plain"):
        shell.display_formatter.formatters[kind].pop(Endpoint, None)
    profile.unregister(shell)
    tune.unregister(shell)
    export.unregister(shell)
    watches().leave_cards()
    panels().leave_pictures()
    home().stop()


def _endpoint_html(endpoint: Endpoint) -> str:
    return card(endpoint.stats(), endpoint.curl()).html


def _endpoint_text(endpoint: Endpoint, printer: Any, cycle: bool) -> None:
    printer.text(card(endpoint.stats(), endpoint.curl()).text)

"""`%serve tune`: the verb's line, the frontier drawn live, and how a Tuned is shown. Runs in the kernel."""

from __future__ import annotations

import argparse
import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.display import DisplayHandle, display

from nbserve.errors import NbserveError
from nbserve.exchange import encode
from nbserve.notebook import cell, freetext, options
from nbserve.notebook.profile import Told
from nbserve.options import TUNE_HELP, add_tune_options, tune_options_of
from nbserve.profiling.requests import Request
from nbserve.tune.options import TuneOptions
from nbserve.verbs import Endpoint

if TYPE_CHECKING:
    from nbserve.tune.state import State
    from nbserve.tune.tuned import Tuned

# Its own name, so that showing it is known before anything imports it.
TUNED = ("nbserve.tune.tuned", "Tuned")

HELP = f"""\
{TUNE_HELP}

  %serve tune digits --p99-ms 50            search for two minutes at most, and say what is best
  %serve tune digits --p99-ms 50 --apply    ... and change to it, if it is proven to be better
  t = %serve tune digits --p99-ms 50        t.best, t.points, t.frontier; t.options, t.apply()
  %serve tune digits --p99-ms 50 --load 200 at least 200 requests a second, which come by chance
  %serve tune digits --request {{"image": [[0, 1], [1, 0]]}}
Interrupt it whenever you like: nothing is changed, and the best so far is told.
In a terminal `nbserve tune NAME` takes the same options."""


def parser() -> options.Parser:
    parser = options.verb_parser(
        "tune",
        "Find the settings with the highest throughput that keep a latency goal.",
        usage="%%serve tune NAME [options]",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="the endpoint")
    add_tune_options(parser)
    return parser


def asked_of(shell: InteractiveShell, parser: options.Parser, line: str) -> tuple[str, TuneOptions]:
    """The endpoint's name and how the line wants it tuned."""
    line, texts = freetext.cut(line, parser.option_names(), ("--request",))
    given = texts.get("--request")
    if given == "":
        parser.error('--request takes JSON or an expression of this notebook, such as: --request {"x": [1, 2]}')
    if given is None or freetext.is_file(given):
        values = parser.parse([*options.split(line), *([f"--request={given}"] if given else [])])
        return values.name, tune_options_of(values)
    values = parser.parse(options.split(line))
    body, kind = encode(freetext.request(given, functools.partial(cell.evaluate, shell)))
    request = Request(values.content_type or kind, body)
    values.content_type = None
    return values.name, dataclasses.replace(tune_options_of(values), requests=(request,))


def run(shell: InteractiveShell, endpoint: Endpoint, asked: TuneOptions) -> Tuned:
    """Tune, and show how far it is; an interrupt ends it with the best so far."""
    from nbserve.tune.session import tune

    live = Live(shell, endpoint.name)
    try:
        tuned = tune(endpoint, asked, live)
    except KeyboardInterrupt:
        live.end("interrupted before anything was measured: nothing was changed")
        raise
    except NbserveError:
        live.end("not tuned")
        raise
    live.finish(tuned)
    return tuned


class Live:
    """One display that changes; where displays cannot change, a line for each thing that is tried."""

    def __init__(self, shell: InteractiveShell, name: str) -> None:
        self._shell = shell
        self._told = Told(shell, name)
        self._handle: DisplayHandle | None = None

    def __call__(self, state: State) -> None:
        if not self._updates_in_place:
            self._told(state.what)
            return
        from nbserve.tune import page, summary

        self._show({"text/html": page.live(state), "text/plain": summary.progress(state)})

    def end(self, text: str) -> None:
        """It ended without a result."""
        if self._updates_in_place:
            self._show({"text/plain": text})
        else:
            self._told(text)

    def finish(self, tuned: Tuned) -> None:
        """The result, in the place of what was shown while it ran, and its picture as an output of its own."""
        if not self._updates_in_place:
            return
        self._show({"text/html": tuned._repr_html_(), "text/plain": tuned.text})
        _show_picture(tuned)
        _seen(self._shell).append((tuned, self._shell.execution_count))

    @property
    def _updates_in_place(self) -> bool:
        return hasattr(self._shell, "kernel")

    def _show(self, data: dict[str, Any]) -> None:
        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)


def register(shell: InteractiveShell) -> None:
    """Show what was tuned as two outputs: HTML, and a picture for readers that show none."""
    shell.display_formatter.ipython_display_formatter.for_type_by_name(*TUNED, functools.partial(_show, shell))


def unregister(shell: InteractiveShell) -> None:
    formatter = shell.display_formatter.ipython_display_formatter
    formatter.deferred_printers.pop(TUNED, None)
    for kind in [kind for kind in formatter.type_printers if (kind.__module__, kind.__name__) == TUNED]:
        del formatter.type_printers[kind]


def _show(shell: InteractiveShell, tuned: Tuned) -> None:
    if any(known is tuned and count == shell.execution_count for known, count in _seen(shell)):
        return  # It stands right above, as the end of what was shown live.
    if not hasattr(shell, "kernel"):
        display({"text/plain": tuned.text}, raw=True)
        return
    display({"text/html": tuned._repr_html_(), "text/plain": tuned.text}, raw=True)
    _show_picture(tuned)


def _show_picture(tuned: Tuned) -> None:
    # An output of its own: of a notebook that is not trusted only pictures are shown.
    display({"image/png": tuned.picture(), "text/plain": f"<picture of how {tuned.name} was tuned>"}, raw=True)


@functools.cache
def _seen(shell: InteractiveShell) -> list[tuple[Tuned, int]]:
    """What this shell has shown live, and in which cell."""
    return []

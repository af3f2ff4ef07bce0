"""`%serve profile`: the verb's line, progress while it records, and how a Profile is shown. Runs in the kernel."""

from __future__ import annotations

import argparse
import dataclasses
import functools
from typing import TYPE_CHECKING

from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display

from nbserve.errors import NbserveError
from nbserve.exchange import encode
from nbserve.notebook import cell, freetext, options
from nbserve.notebook.progress import ProgressLine
from nbserve.options import PROFILE_HELP, ab_options_of, add_profile_options, profile_options_of
from nbserve.profiling.options import AbOptions, ProfileOptions
from nbserve.profiling.requests import Request
from nbserve.verbs import Endpoint

if TYPE_CHECKING:
    from nbserve.profiling.comparison import Comparison
    from nbserve.profiling.profile import Profile

# Its own name, so that showing a profile is known before anything imports it, and numpy with it.
PROFILE = ("nbserve.profiling.profile", "Profile")

HELP = f"""\
{PROFILE_HELP}

  %serve profile digits                     where the time goes, and what to do about it
  p = %serve profile digits --batches 20    p.findings, p.ops, p.requests; p.save("digits.html")
  %serve profile digits --load 50           ... at 50 requests a second
  %serve profile digits --request {{"image": [[0, 1], [1, 0]]}}
  %serve profile digits --ab 1              is the first thing it proposes faster, and are the answers the same?
  %serve profile digits --ab compile=inductor --apply
In a terminal `nbserve profile NAME` takes the same options."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a line asks for: a recording, or with `fix` a comparison."""

    record: ProfileOptions | None = None
    fix: str = ""
    compare: AbOptions = dataclasses.field(default_factory=AbOptions)


def parser() -> options.Parser:
    parser = options.verb_parser(
        "profile",
        "Say where the time of requests goes, and try out what makes them faster.",
        usage="%%serve profile NAME [options]",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="the endpoint")
    add_profile_options(parser)
    return parser


def asked_of(shell: InteractiveShell, parser: options.Parser, line: str) -> tuple[str, Asked]:
    """The endpoint's name and what the line asks for."""
    line, texts = freetext.cut(line, parser.option_names(), ("--request",))
    given = texts.get("--request")
    if given == "":
        parser.error('--request takes JSON or an expression of this notebook, such as: --request {"x": [1, 2]}')
    is_file = given is not None and freetext.is_file(given)
    # The parser sees that there is a request, and not yet which.
    values = parser.parse([*options.split(line), *([f"--request={given if is_file else ''}"] if given else [])])
    request = None
    if given and not is_file:
        body, kind = encode(freetext.request(given, functools.partial(cell.evaluate, shell)))
        request = Request(values.content_type or kind, body)
    return values.name, _asked(values, request)


def _asked(values: argparse.Namespace, request: Request | None) -> Asked:
    if values.ab is not None:
        compare = ab_options_of(values)
        return Asked(fix=values.ab, compare=dataclasses.replace(compare, requests=[request]) if request else compare)
    record = profile_options_of(values)
    if request:
        record = dataclasses.replace(record, request=request.body, content_type=request.content_type)
    return Asked(record)


def run(shell: InteractiveShell, endpoint: Endpoint, asked: Asked) -> Profile | Comparison:
    """Record or compare; an interrupt ends it, and nothing of it stays."""
    from nbserve.profiling import ab, session

    told = Told(shell, endpoint.name)
    try:
        if asked.record is None:
            compared = ab.compare(endpoint, asked.fix, asked.compare, told)
            told("compared")
            return compared
        profile = session.record(endpoint, asked.record, told)
    except KeyboardInterrupt:
        told("interrupted: nothing was kept, and nothing records any more")
        raise
    except NbserveError:
        told("nothing was recorded" if asked.record else "nothing was compared")
        raise
    told(f"recorded {len(profile.requests):,} requests")
    return profile


class Told:
    """Progress in one line; where it cannot be updated in place, without what only counts on."""

    def __init__(self, shell: InteractiveShell, name: str) -> None:
        self._line = ProgressLine(shell, name)
        self._before = ""

    def __call__(self, text: str) -> None:
        news = text if self._line.updates_in_place else text.partition(":")[0]
        if news != self._before:
            self._before = news
            self._line(text)


def register(shell: InteractiveShell) -> None:
    """Show profiles as two outputs: a page, and a picture for readers that run no scripts."""
    shell.display_formatter.ipython_display_formatter.for_type_by_name(*PROFILE, functools.partial(_show, shell))


def unregister(shell: InteractiveShell) -> None:
    formatter = shell.display_formatter.ipython_display_formatter
    formatter.deferred_printers.pop(PROFILE, None)
    for kind in [kind for kind in formatter.type_printers if (kind.__module__, kind.__name__) == PROFILE]:
        del formatter.type_printers[kind]


def _show(shell: InteractiveShell, profile: Profile) -> None:
    if not hasattr(shell, "kernel"):
        display({"text/plain": profile.text}, raw=True)
        return
    display({"text/html": profile._repr_html_(), "text/plain": profile.text}, raw=True)
    # An output of its own: of a notebook that is not trusted only pictures are shown.
    display({"image/png": profile.picture(), "text/plain": f"<picture of the profile of {profile.name}>"}, raw=True)

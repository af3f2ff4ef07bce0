"""`nbserve profile`: where the time of requests goes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nbserve.cli.arguments import add_endpoint, endpoint_of
from nbserve.options import PROFILE_HELP, ab_options_of, add_profile_options, profile_options_of

if TYPE_CHECKING:
    from nbserve.cli.arguments import Verbs

EXAMPLES = """\
examples:
  nbserve profile digits                        where the time goes, and what to do about it
  nbserve profile digits -o digits.html         ... as a page to look around in
  nbserve profile digits --load 50 -o t.json.gz at 50 requests a second, as a Chrome trace for Perfetto
  nbserve profile digits --ab compile=inductor  is it faster, and are the answers the same?
"""


def add(verbs: Verbs) -> None:
    profile = verbs.add_parser(
        "profile",
        help="say where the time of requests goes, and try fixes out",
        description=f"Record an endpoint, from HTTP to kernel. {PROFILE_HELP}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_endpoint(profile)
    profile.add_argument(
        "-o", dest="file", metavar="FILE", help="save as .html (page), or .json or .json.gz (Chrome trace)"
    )
    add_profile_options(profile)
    profile.set_defaults(run=_profile)


def _profile(values: argparse.Namespace) -> None:
    # Only here: the other verbs need no numpy.
    from nbserve.profiling import terminal

    if values.ab is not None:
        print(terminal.compare(endpoint_of(values), values.ab, ab_options_of(values), values.file))
    else:
        print(terminal.record(endpoint_of(values), profile_options_of(values), values.file))

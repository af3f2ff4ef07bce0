"""`nbserve tune`: find the best settings."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nbserve.cli.arguments import add_endpoint, endpoint_of
from nbserve.options import TUNE_HELP, add_tune_options, tune_options_of

if TYPE_CHECKING:
    from nbserve.cli.arguments import Verbs

EXAMPLES = """\
examples:
  nbserve tune digits --p99-ms 50               the most throughput with a p99 within 50 ms
  nbserve tune digits --p99-ms 50 --apply       ... and change to it, if it is proven to be better
  nbserve tune digits --p99-ms 50 --load 200    at least 200 requests a second, which come by chance
"""


def add(verbs: Verbs) -> None:
    tune = verbs.add_parser(
        "tune",
        help="find the settings with the highest throughput that keep a latency goal",
        description=f"Find the settings that serve most within a latency goal.\n{TUNE_HELP}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_endpoint(tune)
    add_tune_options(tune)
    tune.add_argument("--json", action="store_true", help="print everything, for programs")
    tune.set_defaults(run=_tune)


def _tune(values: argparse.Namespace) -> int:
    # Only here: the other verbs need no numpy.
    from nbserve.tune import terminal

    text, code = terminal.tune(endpoint_of(values), tune_options_of(values), values.json)
    print(text)
    return code

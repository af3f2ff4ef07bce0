"""`nbserve attach`: debug a worker."""

from __future__ import annotations

import argparse
import dataclasses
import os
from typing import TYPE_CHECKING

from nbserve.cli.arguments import add_endpoint, endpoint_of
from nbserve.debugging import debug
from nbserve.debugging.terminal import TerminalConsole
from nbserve.options import DEBUG_HELP, add_debug_options, debug_options_of

if TYPE_CHECKING:
    from nbserve.cli.arguments import Verbs

EXAMPLES = """\
examples:
  nbserve attach digits                                take the worker that a breakpoint() holds
  nbserve attach digits --at preprocess                stop at its next call
  nbserve attach digits --at 12 --if 'len(xs) > 3'     stop in line 12 of the cell, when this is true there
  nbserve attach digits --request '[[0, 1]]'           send this and stop in it
  nbserve attach digits --last-error --commands 'p x; w'
"""


def add(verbs: Verbs) -> None:
    attach = verbs.add_parser(
        "attach",
        help="debug a worker with pdb while the others serve",
        description=f"Debug a live worker with pdb. {DEBUG_HELP}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_endpoint(attach)
    add_debug_options(attach)
    attach.set_defaults(run=_attach)


def _attach(values: argparse.Namespace) -> None:
    who = f"terminal, pid {os.getpid()}"
    debug(endpoint_of(values), dataclasses.replace(debug_options_of(values), who=who), TerminalConsole())

"""The command `nbserve`: a module for each verb, or for a few. `serve` turns this process into a server; the other
verbs talk to running ones."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import nbserve
from nbserve.cli import attach, endpoint, profile, ps, serve, tune
from nbserve.errors import NbserveError, StartError
from nbserve.options import as_option

_MODULES = (serve, ps, endpoint, attach, profile, tune)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; gives the exit code: 0 done, 1 it failed, 2 the command line was wrong."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["config"]:
        words = [as_option(word) for word in words]
    values = _parser().parse_args(words)
    try:
        return int(values.run(values) or 0)
    except StartError as error:
        print(f"nbserve: {error}\n{error.traceback_text}".rstrip(), file=sys.stderr)
    except NbserveError as error:
        print(f"nbserve: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nbserve", description="Serve PyTorch handlers written in notebook cells.")
    parser.add_argument("--version", action="version", version=nbserve.__version__)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for module in _MODULES:
        module.add(verbs)
    return parser

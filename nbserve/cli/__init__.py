"""The command `nbserve`: a module for each verb, or for a few. `serve` turns this process into a server; the other
verbs talk to running ones."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

import nbserve
from nbserve.errors import NbserveError, StartError

# The module of each verb. Only the one that is asked for is imported: containers are asked for their health all day.
VERBS = {
    "serve": "serve",
    "ps": "ps",
    "predict": "endpoint",
    "config": "endpoint",
    "logs": "endpoint",
    "stop": "endpoint",
    "health": "health",
    "attach": "attach",
    "profile": "profile",
    "tune": "tune",
    "export": "export",
    "ray": "ray",
    "verify": "verify",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; gives the exit code: 0 done, 1 it failed, 2 the command line was wrong."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["config"]:
        from nbserve.options import as_option

        words = [as_option(word) for word in words]
    values = _parser(words).parse_args(words)
    try:
        return int(values.run(values) or 0)
    except StartError as error:
        print(f"nbserve: {error}\n{error.traceback_text}".rstrip(), file=sys.stderr)
    except NbserveError as error:
        print(f"nbserve: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nbserve", description="Serve PyTorch handlers written in notebook cells.")
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show the version and exit")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    asked = [VERBS[words[0]]] if words and words[0] in VERBS else dict.fromkeys(VERBS.values())
    for module in asked:
        importlib.import_module(f"nbserve.cli.{module}").add(verbs)
    return parser


class _ShowVersion(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: Any) -> None:
        print(nbserve.__version__)
        parser.exit()

"""The options of `%%serve` and of the verbs of `%serve`: parsers that explain and never end the kernel."""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
from collections.abc import Sequence
from typing import Any, NoReturn

from IPython.core.error import UsageError

from nbserve.config import EndpointConfig
from nbserve.options import add_settings, number

HELP = ("-h", "--help")


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UsageError, and names the option that was meant."""

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(prog=prog, add_help=False, allow_abbrev=False, **settings)

    def parse(self, tokens: Sequence[str]) -> argparse.Namespace:
        values, left = self.parse_known_args(list(tokens))
        if left:
            self.error(self._unknown(left[0]))
        return values

    def option_names(self) -> list[str]:
        return [name for action in self._actions for name in action.option_strings]

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message} ({self.prog} --help lists what there is)")

    def _unknown(self, token: str) -> str:
        if not token.startswith("-"):
            return f"{token!r} is one word too many"
        option = token.partition("=")[0]
        return f"there is no option {option}" + meant(option, self.option_names())


def meant(word: str, known: Sequence[str]) -> str:
    """`; did you mean X?` when something known is near, else nothing."""
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def wants_help(tokens: Sequence[str]) -> bool:
    return any(token in HELP for token in tokens)


def split(line: str) -> list[str]:
    """The words of a magic line, quoted as in a shell."""
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f"the quotes of this line do not match: {error}") from None


def cell_parser() -> Parser:
    """%%serve NAME [options]"""
    parser = Parser(
        "%%serve",
        usage="%%%%serve NAME [options]",
        description="Serve the handler that this cell defines. Running the cell again replaces it; no request is lost.",
    )
    parser.add_argument("name", metavar="NAME", type=_endpoint_name, help="the endpoint: POST /predictions/NAME")
    add_settings(parser, EndpointConfig)
    parser.add_argument("--port", type=number(int), metavar="N", help="port of the inference API (default: a free one)")
    parser.add_argument("--detach", action="store_true", help="keep serving when the kernel ends")
    parser.add_argument("--no-panel", dest="panel", action="store_false", help="show the card alone, no live panel")
    return parser


def verb_parser(verb: str, description: str, **settings: Any) -> Parser:
    return Parser(f"%serve {verb}", description=description, **settings)


def _endpoint_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} cannot stand in a URL; letters, digits, - and _ can")
    return text

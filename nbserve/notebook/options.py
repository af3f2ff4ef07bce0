"""The options of `%%serve` and of the verbs of `%serve`: parsers that explain and never end the kernel."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from IPython.core.error import UsageError

from nbserve.config import EndpointConfig

HELP = ("-h", "--help")

_HELP_TEXTS = {
    "workers": "processes that run the handler",
    "max_batch_size": "most requests in one batch",
    "max_batch_delay_ms": "fixed window: how long the oldest request waits for others",
    "policy": "adaptive waits only for connections that come back; window waits max-batch-delay-ms",
    "queue_size": "requests that may wait before others get 503",
    "response_timeout_s": "a batch that takes longer costs its worker",
    "start_timeout_s": "how long initialize may take",
    "device": "auto, cpu, cuda, cuda:0, ..., or mps",
    "threads_per_worker": "0 means cores divided by workers",
    "isolate_errors": "run the rows of a batch that raised again, each alone",
}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UsageError, and names the option that was meant."""

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(prog=prog, add_help=False, allow_abbrev=False, **settings)

    def parse(self, tokens: Sequence[str]) -> argparse.Namespace:
        values, left = self.parse_known_args(list(tokens))
        if left:
            self.error(self._unknown(left[0]))
        return values

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message} ({self.prog} --help lists what there is)")

    def _unknown(self, token: str) -> str:
        if not token.startswith("-"):
            return f"{token!r} is one word too many"
        option = token.partition("=")[0]
        known = [name for action in self._actions for name in action.option_strings]
        return f"there is no option {option}" + meant(option, known)


def meant(word: str, known: Sequence[str]) -> str:
    """`; did you mean X?` when something known is near, else nothing."""
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.5)
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
        description="Serve the handler that this cell defines. Running the cell again replaces it; no request is lost.",
    )
    parser.add_argument("name", metavar="NAME", type=_endpoint_name, help="the endpoint: POST /predictions/NAME")
    add_settings(parser)
    parser.add_argument(
        "--port", type=_number(int), metavar="N", help="port of the inference API (default: a free one)"
    )
    parser.add_argument("--detach", action="store_true", help="keep serving when the kernel ends")
    return parser


def verb_parser(verb: str, description: str) -> Parser:
    return Parser(f"%serve {verb}", description=description)


def add_settings(parser: Parser) -> None:
    """One option per setting of an endpoint; settings that are not given stay out of the result."""
    group = parser.add_argument_group("settings")
    for field in dataclasses.fields(EndpointConfig):
        kind: Any = type(field.default)
        option = f"--{field.name.replace('_', '-')}"
        told: dict[str, Any] = {
            "help": f"{_HELP_TEXTS[field.name]} (default: {field.default})",
            "default": argparse.SUPPRESS,
        }
        if kind is bool:
            group.add_argument(option, action=argparse.BooleanOptionalAction, **told)
        else:
            word = {int: "N", float: "X", str: "TEXT"}[kind]
            group.add_argument(option, type=str if kind is str else _number(kind), metavar=word, **told)


def settings_of(values: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given, by their names in EndpointConfig."""
    names = {field.name for field in dataclasses.fields(EndpointConfig)}
    return {name: value for name, value in vars(values).items() if name in names}


def as_options(tokens: Sequence[str]) -> list[str]:
    """`max_batch_size=8` written as the option `--max-batch-size=8`; other words stay as they are."""
    return [_as_option(token) if re.match(r"[a-z_]+=", token) else token for token in tokens]


def _as_option(token: str) -> str:
    name, _, value = token.partition("=")
    option = name.replace("_", "-")
    if name == "isolate_errors" and value.lower() in ("true", "false", "1", "0"):
        return f"--{option}" if value.lower() in ("true", "1") else f"--no-{option}"
    return f"--{option}={value}"


def _endpoint_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} cannot stand in a URL; letters, digits, - and _ can")
    return text


def _number(kind: type) -> Callable[[str], Any]:
    return functools.partial(_read_number, kind)


def _read_number(kind: type, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"takes {wanted}, not {text!r}") from None

"""`nbserve verify`: does what runs at a URL answer as the notebook did?"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbserve.bundle.bundle import Golden, read_golden
from nbserve.config import DTYPES
from nbserve.errors import BundleError, ConfigError
from nbserve.replay import FLOAT32, Mismatch, Replay, Tolerance, replay
from nbserve.replay.client import ANSWER_LIMIT_S

if TYPE_CHECKING:
    from nbserve.cli.arguments import Verbs

DESCRIPTION = """\
Asks each request of an exported folder's golden.jsonl and compares the answers:
status, media type and body. JSON is compared value by value, other bodies byte
for byte. Ends with 0 when all are equal, 1 at the first that is not (or when
nothing answers), 2 when the command line is wrong."""
EXAMPLES = """\
examples:
  nbserve verify http://127.0.0.1:8080 digits/golden.jsonl --wait 60
  nbserve verify https://models.example.com/predictions/digits golden.jsonl \\
      --header "Authorization: Bearer $TOKEN"
"""


def add(verbs: Verbs) -> None:
    verify = verbs.add_parser(
        "verify",
        help="ask a running container the recorded requests and compare the answers",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument("url", metavar="URL", help="where predictions are asked for, or a server with one endpoint")
    verify.add_argument("golden", metavar="GOLDEN", type=Path, help="the golden.jsonl with requests and answers")
    verify.add_argument(
        "--dtype", choices=DTYPES, default="", help="allow for rounding in this type (default: float32)"
    )
    _add_number(verify, "--rtol", None, f"share of a number that it may be off (float32: {FLOAT32.relative:g})")
    _add_number(verify, "--atol", None, f"how much any number may be off (float32: {FLOAT32.absolute:g})")
    verify.add_argument(
        "--ignore", action="append", default=[], metavar="PLACE", help="not compared: $.id, or $.rows[*].id in each row"
    )
    verify.add_argument(
        "--header", action="append", default=[], type=_header, metavar="'NAME: VALUE'", help="sent along"
    )
    _add_number(verify, "--wait", 0.0, "seconds to wait until it is ready (default: 0)")
    _add_number(verify, "--timeout", ANSWER_LIMIT_S, f"seconds to wait for each answer (default: {ANSWER_LIMIT_S:g})")
    verify.add_argument("--json", action="store_true", help="print everything, for programs")
    verify.set_defaults(run=_verify)


def _add_number(verify: argparse.ArgumentParser, option: str, default: float | None, text: str) -> None:
    verify.add_argument(option, type=_number, default=default, metavar="X", help=text)


def _number(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of 0 or more")
    return number


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip() or not text.isascii() or not text.isprintable() or " " in name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is no header such as 'Authorization: Bearer ...'")
    return name.strip(), value.strip()


def _verify(values: argparse.Namespace) -> int:
    try:
        pairs = _pairs(values.golden)
        found = replay(
            values.url,
            pairs,
            _tolerance(values),
            headers=dict(values.header),
            limit_s=values.timeout or ANSWER_LIMIT_S,
            wait_s=values.wait,
        )
    except (ConfigError, BundleError) as error:
        print(f"nbserve: {error}", file=sys.stderr)
        return 2
    if values.json:
        print(json.dumps(_as_json(found), indent=2))
    elif found.mismatch:
        print(f"{found}{_way_out(found.mismatch)}", file=sys.stderr)
    else:
        print(found)
    return 1 if found.mismatch else 0


def _tolerance(values: argparse.Namespace) -> Tolerance:
    given = {"relative": values.rtol, "absolute": values.atol, "ignore": frozenset(values.ignore)}
    return replace(Tolerance.of_dtype(values.dtype), **{name: each for name, each in given.items() if each is not None})


def _way_out(mismatch: Mismatch) -> str:
    place = mismatch.difference.place
    return f" Leave it out with --ignore '{place}'." if mismatch.changes and place.startswith("$") else ""


def _pairs(file: Path) -> list[Golden]:
    try:
        pairs = read_golden(file)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not pairs:
        raise ConfigError(f"{file} holds no request: record some (%serve predict NAME ...), and export again")
    return pairs


def _as_json(found: Replay) -> dict[str, Any]:
    return {
        "url": found.url,
        "asked": found.asked,
        "equal": found.checked,
        "ms": [round(ms, 3) for ms in found.ms],
        "difference": None if found.mismatch is None else _difference(found.mismatch),
    }


def _difference(mismatch: Mismatch) -> dict[str, Any]:
    at = mismatch.difference
    return {
        "request": mismatch.number,
        "place": at.place,
        "expected": at.expected,
        "received": at.received,
        "others": at.others,
        "status": mismatch.received.status,
        "hint": mismatch.hint,
        "text": str(mismatch),
    }

"""Options whose value is code or JSON, with spaces and quotes: cut out of a magic's raw line. Runs in the kernel."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from IPython.core.error import UsageError


class Cut(NamedTuple):
    """A line without its free texts, and these by the names of their options."""

    line: str
    texts: dict[str, str]


def cut(line: str, known: Sequence[str], free: Sequence[str]) -> Cut:
    """Take the values of the options `free` out of the line; a value ends where one of the `known` options follows."""
    texts: dict[str, str] = {}
    place = _option(free)
    start = 0
    while found := place.search(line, start):
        name = found.group("name")
        end = _end(name, line, found.end(), _option(known))
        texts[name] = line[found.end() : end].strip()
        line, start = line[: found.start()] + line[end:], found.start()
    return Cut(line, texts)


def condition(text: str) -> str:
    """A Python expression, which may stand in quotes as in a shell."""
    text = unquoted(text)
    try:
        compile(text, "<condition>", "eval")
    except SyntaxError as error:
        raise UsageError(f"--if {text} is no Python expression: {error.msg}") from None
    return text


def value(text: str, evaluate: Callable[[str], Any]) -> Any:
    """JSON, else what a Python expression gives."""
    try:
        return json.loads(text)
    except ValueError:
        pass  # Evaluated out here, so that its errors do not mention JSON.
    return evaluate(text)


def is_file(text: str) -> bool:
    """`@FILE`, which no expression can begin with."""
    return text.startswith("@")


def request(text: str, evaluate: Callable[[str], Any]) -> Any:
    """What a `--request` stands for: JSON or an expression."""
    bare = unquoted(text)
    # Quoted as in a terminal; other quoted texts are texts to send.
    return value(bare if bare[:1] in ("{", "[") else text, evaluate)


def unquoted(text: str) -> str:
    """A text that is one quoted word in a shell, without the quotes; others as they are."""
    if text[:1] not in ("'", '"'):
        return text
    try:
        words = shlex.split(text)
    except ValueError:
        return text
    return words[0] if len(words) == 1 and text.endswith(text[0]) else text


def _option(names: Sequence[str]) -> re.Pattern[str]:
    listed = "|".join(map(re.escape, names))
    return re.compile(rf"(?:(?<=\s)|^)(?P<name>{listed})(?:=|(?=\s)|$)")


def _end(name: str, line: str, start: int, option: re.Pattern[str]) -> int:
    """The first place where an option follows and what stands before it is complete."""
    for end in _ends(line, start, option):
        if _is_complete(name, line[start:end].strip()):
            return end
    return next(_ends(line, start, option))


def _ends(line: str, start: int, option: re.Pattern[str]) -> Iterator[int]:
    yield from (found.start() for found in option.finditer(line, start))
    yield len(line)


def _is_complete(name: str, text: str) -> bool:
    if name == "--request" and _is_json(text):
        return True
    return _has_paired_quotes(text) if name in ("--at", "--commands") else _is_expression(unquoted(text))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _is_expression(text: str) -> bool:
    try:
        compile(text, "<option>", "eval")
    except SyntaxError:
        return False
    return True


def _has_paired_quotes(text: str) -> bool:
    try:
        shlex.split(text)
    except ValueError:
        return False
    return True

"""From a template and values to the text of a file. Pure but for reading the template."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from string import Template

_CONDITION = re.compile(r"\?(!?)(\w+) ?(.*)", re.DOTALL)
_NOT_PRINTED = re.compile(r"[^\x20-\x7e]")
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
# Without quotes YAML reads them as no text.
_WORDS = frozenset(("y", "yes", "n", "no", "on", "off", "true", "false", "null"))


def filled(template: str, /, **values: object) -> str:
    """The template below `templates/` with its `$names` replaced.

    A line that begins with `?name ` is there only where that value is true, one with `?!name ` where it is not.
    """
    return Template("".join(_kept(_source(template), values))).substitute(values)


def yaml_text(text: str) -> str:
    """A text as YAML reads it back, whatever is in it: plain, or in JSON's quotes with YAML's escapes."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return _NOT_PRINTED.sub(lambda found: f"\\U{ord(found[0]):08x}", json.dumps(text, ensure_ascii=False))


@cache
def _source(template: str) -> str:
    return files("nbserve.export").joinpath("templates", *template.split("/")).read_text(encoding="utf-8")


def _kept(source: str, values: dict[str, object]) -> list[str]:
    lines = []
    for line in source.splitlines(keepends=True):
        condition = _CONDITION.fullmatch(line)
        if condition is None:
            lines.append(line)
        elif bool(values[condition[2]]) is not bool(condition[1]):
            lines.append(condition[3])
    return lines

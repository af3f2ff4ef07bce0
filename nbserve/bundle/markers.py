"""The comment above each block of app.py that says which cell line it comes from. Runs in kernel, server and worker."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

_MARKER = re.compile(r"# %% (?P<label>.+), line (?P<line>\d+)$")


class Statement(NamedTuple):
    """A top-level statement of app.py and the cell line that its first line is; no label for lines nbserve wrote."""

    node: ast.stmt
    first_line: int
    label: str | None
    cell_line: int


def marker(label: str, line: int) -> str:
    return f"# %% {label}, line {line}"


def statements(source: str, filename: str = "app.py") -> Iterator[Statement]:
    """The top-level statements of app.py in order. A marker counts only directly above a statement."""
    lines = source.splitlines()
    for node in ast.parse(source, filename).body:
        first = first_line(node)
        found = _MARKER.match(lines[first - 2]) if first > 1 else None
        if found:
            yield Statement(node, first, found["label"], int(found["line"]))
        else:
            yield Statement(node, first, None, first)


def without_markers(source: str) -> str:
    """The source less its markers: the same cell run again has another number, and is still the same code."""
    marks = {statement.first_line - 1 for statement in statements(source) if statement.label is not None}
    return "\n".join(line for number, line in enumerate(source.splitlines(), 1) if number not in marks)


def first_line(node: ast.AST) -> int:
    """The line on which a statement starts, decorators included."""
    decorators = getattr(node, "decorator_list", [])
    return min(int(part.lineno) for part in [node, *decorators])

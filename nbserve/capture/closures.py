"""Source for functions made inside other functions: a factory that takes what they closed over. In the kernel."""

from __future__ import annotations

import ast
import types
from collections.abc import Mapping

from nbserve.capture.cells import Definition


def free_values(function: types.FunctionType) -> dict[str, object]:
    """What the function closed over, by name; itself, when it is recursive, is left out."""
    values = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        value = cell.cell_contents
        if value is not function:
            values[name] = value
    return values


def factory(name: str, found: Definition, arguments: Mapping[str, str]) -> tuple[str, int]:
    """(source, line in the cell of its first line). The function's own lines stay as they are, indentation included.

    Indenting them anew would change the texts of many lines in them.
    """
    maker = f"_make_{name.lstrip('_')}"
    call = f"{name} = {maker}({', '.join(f'{key}={value}' for key, value in arguments.items())})"
    head = f"def {maker}({', '.join(arguments)}):"
    node = found.node
    if isinstance(node, ast.Lambda):
        text = ast.get_source_segment(found.cell.text, node) or ""
        return f"{head}\n    return ({text})\n\n{call}", found.line - 1
    lines = _without_decorators(found)
    indent = lines[: len(lines) - len(lines.lstrip())]
    return f"{head}\n{lines}\n{indent}return {getattr(node, 'name', '')}\n\n{call}", getattr(node, "lineno", 1) - 1


def _without_decorators(found: Definition) -> str:
    node = found.node
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return found.cell.lines(node.lineno, node.end_lineno or node.lineno)

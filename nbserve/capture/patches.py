"""What was done to a class after its statement ran: methods put in, plain attributes set. Runs in the kernel."""

from __future__ import annotations

import ast
import enum
import types
from typing import Any

from nbserve.capture.cells import Definition
from nbserve.capture.literals import literal
from nbserve.capture.samecode import code_inside, same_code


def patched_methods(cls: type, found: Definition) -> dict[str, types.FunctionType]:
    """Functions of the class that its statement does not contain; decorators may have made any, so then none."""
    node: Any = found.node
    if node.decorator_list:
        return {}
    decorated = {part.name for part in node.body if getattr(part, "decorator_list", [])}
    assigned = {target.id for part in node.body for target in ast.walk(part) if isinstance(target, ast.Name)}
    return {
        name: value
        for name, value in vars(cls).items()
        if isinstance(value, types.FunctionType)
        and value.__module__ == "__main__"
        and name not in decorated | assigned
        and not _contains(found, value.__code__)
    }


def patched_values(cls: type, found: Definition) -> dict[str, str]:
    """Attributes that the statement sets to a literal and that are another plain value now, as source."""
    node: Any = found.node
    if isinstance(cls, enum.EnumMeta):
        return {}
    changed = {}
    for part in node.body:
        if isinstance(part, ast.Assign) and len(part.targets) == 1 and isinstance(part.targets[0], ast.Name):
            name = part.targets[0].id
            text = literal(vars(cls).get(name))
            if text is not None and name in vars(cls) and text != _written(part.value):
                changed[name] = text
    return {name: text for name, text in changed.items() if _written_once(node, name) is not None}


def _written(value: ast.expr) -> str | None:
    try:
        return literal(ast.literal_eval(value))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _written_once(node: ast.ClassDef, name: str) -> str | None:
    bound = [part for part in ast.walk(node) if isinstance(part, ast.Assign) and name in map(_target, part.targets)]
    return _written(bound[0].value) if len(bound) == 1 else None


def _target(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _contains(found: Definition, code: types.CodeType) -> bool:
    return any(same_code(code, known) for known in code_inside(found.cell.tree, code.co_flags, found.node))

"""Is this object what the decorators of a def or class statement made? Runs in the kernel."""

from __future__ import annotations

import ast
import types
from typing import Any

import torch

from nbserve.capture.cells import Cells, Definition, Definition_node
from nbserve.capture.samecode import code_inside, same_code

_DEPTH = 4


def decorated(obj: Any, name: str, cells: Cells) -> Definition | None:
    """The decorated statement that bound the name, if the object wraps its code; classes have their own way."""
    if isinstance(obj, torch.nn.Module | type):
        return None
    for written in dict.fromkeys((name, str(getattr(obj, "__name__", name)))):
        for found in cells.binders(written):
            if isinstance(found.node, Definition_node) and found.node.decorator_list and _wraps(obj, found):
                return found
    return None


def _wraps(obj: Any, found: Definition) -> bool:
    """Whether the code of the def, or a method of the class, can be reached from what the decorators returned."""
    for code in _reachable_code(obj, 0, set()):
        known = code_inside(found.cell.tree, code.co_flags, found.node)
        written = known if isinstance(found.node, ast.ClassDef) else known[:1]
        if any(same_code(code, other) for other in written):
            return True
    return False


def _reachable_code(obj: Any, depth: int, seen: set[int]) -> list[types.CodeType]:
    if id(obj) in seen or depth > _DEPTH:
        return []
    seen.add(id(obj))
    if isinstance(obj, type):
        return [c for value in vars(obj).values() if callable(value) for c in _reachable_code(value, depth + 1, seen)]
    if isinstance(obj, types.FunctionType):
        inside = [obj.__code__]
        parts = [cell.cell_contents for cell in obj.__closure__ or () if _is_filled(cell)] + list(vars(obj).values())
    else:
        inside = []
        parts = [*getattr(obj, "__dict__", {}).values(), getattr(obj, "__wrapped__", None), getattr(obj, "func", None)]
    calls = [part for part in parts if callable(part)]
    return inside + [code for part in calls for code in _reachable_code(part, depth + 1, seen)]


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True

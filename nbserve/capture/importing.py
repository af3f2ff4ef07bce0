"""Objects that another process gets by importing them. Runs in the kernel."""

from __future__ import annotations

import ast
import functools
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

from nbserve.capture.cells import Cells

_CODE = (
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    functools._lru_cache_wrapper,
)
_VALUE_TYPES = ("torch.dtype", "torch.layout", "torch.memory_format", "numpy.ufunc", "torch._ops.OpOverloadPacket")


def import_of(obj: Any, name: str, cells: Cells) -> tuple[str, str] | None:
    """(module, statement that binds `name` to the object), as a cell has it where one does; None for other things."""
    if isinstance(obj, types.ModuleType):
        return _module_import(obj, name)
    if not is_code(obj):
        return None
    return written_import(obj, name, cells) or _attribute_import(obj, name)


def written_import(obj: Any, name: str, cells: Cells) -> tuple[str, str] | None:
    """The import statement of a cell that still binds the name to this very object."""
    for module, attribute in _written(name, cells):
        if attribute and _loaded(module, attribute) is obj:
            return module, _from(module, attribute, name)
    return None


def is_code(obj: Any) -> bool:
    """Whether importing it again gives the same: classes, functions, typing objects; not what has state."""
    kind = type(obj)
    return isinstance(obj, _CODE) or kind.__module__ == "typing" or f"{kind.__module__}.{kind.__name__}" in _VALUE_TYPES


def is_importable(obj: Any) -> bool:
    """Whether pickle's way of naming it, module and qualified name, finds it outside the notebook."""
    module, path = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(path, str) or module == "__main__":
        return False
    return _loaded(module, path) is obj


def _module_import(module: types.ModuleType, name: str) -> tuple[str, str] | None:
    path = module.__name__
    if sys.modules.get(path) is not module or path == "__main__":
        return None
    if path == name:
        return path, f"import {path}"
    parent, _, last = path.rpartition(".")
    return path, f"from {parent} import {last}" if parent and last == name else f"import {path} as {name}"


def _attribute_import(obj: Any, name: str) -> tuple[str, str] | None:
    module, path = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None) or getattr(obj, "__name__", "")
    if not isinstance(module, str) or module == "__main__" or "." in str(path):
        return None
    return (module, _from(module, path, name)) if path and _loaded(module, path) is obj else None


def _from(module: str, attribute: str, name: str) -> str:
    return f"from {module} import {attribute}" + (f" as {name}" if attribute != name else "")


def _loaded(module: str, path: str) -> Any:
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


def _written(name: str, cells: Cells) -> Iterator[tuple[str, str]]:
    for found in cells.binders(name):
        node = found.node
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield from ((node.module, alias.name) for alias in node.names if (alias.asname or alias.name) == name)
    for module in cells.star_imports():
        yield module, name


def is_typing(obj: Any) -> bool:
    """Type aliases and variables: `T = TypeVar("T")`, `Pair = tuple[int, int]`."""
    kinds = (types.GenericAlias, types.UnionType, typing.TypeVar, typing.NewType, typing.ParamSpec)
    return isinstance(obj, kinds) or type(obj).__module__ == "typing"

"""Is this live code what that source compiles to? Runs in the kernel."""

from __future__ import annotations
import __future__

import ast
import functools
from collections.abc import Iterator
from types import CodeType
from typing import Any

from nbserve.bundle.markers import first_line

_FUTURE = functools.reduce(
    lambda flags, name: flags | getattr(__future__, name).compiler_flag, __future__.all_feature_names, 0
)
_PARTS = (
    "co_name",
    "co_code",
    "co_names",
    "co_varnames",
    "co_freevars",
    "co_cellvars",
    "co_argcount",
    "co_kwonlyargcount",
)


def same_code(one: CodeType, other: CodeType) -> bool:
    """Equal but for file, line numbers and future flags."""
    if any(getattr(one, part) != getattr(other, part) for part in _PARTS):
        return False
    if len(one.co_consts) != len(other.co_consts):
        return False
    return all(map(_same_constant, one.co_consts, other.co_consts))


def code_objects(tree: ast.Module, flags: int, name: str | None = None) -> list[CodeType]:
    """All code objects of a tree, compiled under the future flags of some live code; only those of a name if given."""
    return [code for code in _compiled(tree, flags & _FUTURE) if name is None or code.co_name == name]


def code_inside(tree: ast.Module, flags: int, statement: Any) -> list[CodeType]:
    """The code of one def or class statement of a tree, and all within it."""
    line = first_line(statement)
    found = [code for code in code_objects(tree, flags, statement.name) if code.co_firstlineno == line]
    return [part for code in found for part in (code, *_nested(code))]


@functools.lru_cache(maxsize=256)
def _compiled(tree: ast.Module, future: int) -> list[CodeType]:
    """Compiled whole, as Python does with a file, and each statement alone, as IPython does with a cell.

    Calls on a module that the same tree imports come out differently.
    """
    flags = future | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    trees = [tree, *(ast.Module([statement], []) for statement in tree.body)]
    return [code for part in trees for code in _nested(compile(part, "<cell>", "exec", flags=flags, dont_inherit=True))]


def _nested(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _nested(constant)


def _same_constant(one: object, other: object) -> bool:
    if isinstance(one, CodeType) and isinstance(other, CodeType):
        return same_code(one, other)
    return type(one) is type(other) and (one == other or repr(one) == repr(other))

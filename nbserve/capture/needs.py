"""Resolve the names that a block of source needs. Runs in the kernel."""

from __future__ import annotations

import ast
import types
from collections.abc import Mapping
from typing import Any, Protocol

from nbserve.capture.blocks import Block, Use
from nbserve.capture.cells import Cells, Definition
from nbserve.capture.names import Names
from nbserve.capture.refusals import is_builtin
from nbserve.errors import CaptureError

_GIVEN = {"__name__", "__doc__", "__builtins__", "__spec__", "__loader__", "__package__", "__class__", "__debug__"}


class Resolving(Protocol):
    """What this needs of the resolver. `modules` and `texts` collect what blocks import and which texts they hold."""

    namespace: Mapping[str, Any]
    cells: Cells
    modules: set[str]
    texts: dict[str, Use | None]

    def named(self, name: str, use: Use | None) -> Block: ...

    def block_of(self, obj: Any, name: str, use: Use | None) -> Block: ...

    def imported(self, module: str, text: str, name: str) -> Block: ...


def resolve_needs(
    resolver: Resolving, block: Block, names: Names, found: Definition, own: set[str], other: Mapping[str, Any]
) -> None:
    """Resolve every name of the block. `own` it binds itself; `other` holds values a name had when the block ran."""
    tree = ast.parse(block.text)
    for group, needed in ((names.when_defined, block.first), (names.when_called, block.later)):
        for name in group:
            if name in other and group is names.when_defined:
                needed.append(resolver.block_of(other[name], name, _use(block, tree, name, found)))
            elif name not in own and not _is_given(resolver, name, tree):
                needed.append(resolver.named(name, _use(block, tree, name, found)))
    _need_optional(resolver, block, names, own)
    _need_modules(resolver, block, names)
    for text, line in names.texts.items():
        resolver.texts[text] = Use(found.cell.label, block.line + line - 1, block.text.splitlines()[line - 1])


def _need_optional(resolver: Resolving, block: Block, names: Names, own: set[str]) -> None:
    for name in names.optional:
        if name in resolver.namespace and name not in own:
            try:
                block.later.append(resolver.named(name, None))
            except CaptureError:
                continue


def _need_modules(resolver: Resolving, block: Block, names: Names) -> None:
    resolver.modules |= set(names.modules)
    for dotted in names.dotted:
        root = dotted.partition(".")[0]
        if isinstance(resolver.namespace.get(root), types.ModuleType):
            for path in resolver.cells.imported_paths(root):
                if path != root and f"{dotted}.".startswith(f"{path}."):
                    block.first.append(resolver.imported(path, f"import {path}", path))


def _is_given(resolver: Resolving, name: str, tree: ast.AST) -> bool:
    """Names that need no block: builtins, and names that only come to be when the code runs."""
    if name in _GIVEN or (name not in resolver.namespace and is_builtin(name)):
        return True
    if name in resolver.namespace:
        return False
    return any(
        (isinstance(node, ast.Global) and name in node.names)
        or (isinstance(node, ast.ExceptHandler) and "NameError" in ast.unparse(node.type or ast.Name("NameError")))
        for node in ast.walk(tree)
    )


def _use(block: Block, tree: ast.AST, name: str, found: Definition) -> Use | None:
    lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name]
    if not lines:
        return None
    return Use(found.cell.label, block.line + min(lines) - 1, block.text.splitlines()[min(lines) - 1])

"""A global that was assigned again after a class or function took its value: seen in the kernel where it can be."""

from __future__ import annotations

import ast
import enum
import types
from collections.abc import Iterator, Mapping
from typing import Any

from nbserve.bundle.checks import digest, shown
from nbserve.capture.blocks import Use
from nbserve.capture.cells import Definition
from nbserve.capture.literals import literal
from nbserve.capture.refusals import refusal

_PURE = (
    ast.Constant,
    ast.Name,
    ast.Load,
    ast.BinOp,
    ast.operator,
    ast.UnaryOp,
    ast.unaryop,
    ast.Tuple,
    ast.List,
    ast.Dict,
)


def refuse_stale(obj: Any, found: Definition, namespace: Mapping[str, Any]) -> None:
    """Raise CaptureError where re-running the definition now would give another value than the live object has."""
    for place, live, expression in _taken(obj, found.node):
        names = [node.id for node in ast.walk(expression) if isinstance(node, ast.Name)]
        if not names or not all(name in namespace for name in names) or not _is_pure(expression, namespace):
            continue
        now = eval(compile(ast.Expression(expression), "<default>", "eval"), dict(namespace))
        if now is not live and _differs(live, now):
            line = expression.lineno
            use = Use(found.cell.label, line, found.cell.lines(line, line))
            why = f"{place} took {shown(live)} from it when it was defined, and it is {shown(now)} now"
            raise refusal(names[0], why, use, "Run the cell that defines it again, so that both agree.")


def origins(obj: Any, found: Definition, namespace: Mapping[str, Any]) -> dict[str, list[str]]:
    """For each place that a definition fills from values of globals, the names of these."""
    own = len(getattr(found.node, "name", ""))
    return {
        place[own:]: names
        for place, _, expression in _taken(obj, found.node)
        if (names := sorted(name for name in _names(expression) if _is_value(namespace.get(name))))
    }


def _is_value(value: Any) -> bool:
    return value is not None and not callable(value) and not isinstance(value, types.ModuleType)


def _taken(obj: Any, node: ast.AST) -> Iterator[tuple[str, Any, ast.expr]]:
    """(place, live value, expression in the source) of class attributes and defaults."""
    if isinstance(node, ast.ClassDef) and isinstance(obj, type):
        if not isinstance(obj, enum.EnumMeta):
            yield from _of_class(obj, node)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and isinstance(obj, types.FunctionType):
        yield from _of_function(obj, node, node.name)


def _of_class(cls: type, node: ast.ClassDef) -> Iterator[tuple[str, Any, ast.expr]]:
    local: set[str] = set()
    for part in node.body:
        target, value = _assignment(part)
        live = vars(cls).get(target) if target else None
        is_kept = target in vars(cls) and not hasattr(live, "__set__")
        if value is not None and is_kept and not local & _names(value):
            yield f"{cls.__name__}.{target}", live, value
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
            live = vars(cls).get(part.name)
            live = getattr(live, "__func__", live)
            if isinstance(live, types.FunctionType) and not part.decorator_list:
                yield from _of_function(live, part, f"{cls.__name__}.{part.name}")
        local |= {target} if target else set()


def _of_function(function: types.FunctionType, node: Any, name: str) -> Iterator[tuple[str, Any, ast.expr]]:
    arguments = [*node.args.posonlyargs, *node.args.args]
    defaults = function.__defaults__ or ()
    if len(defaults) == len(node.args.defaults):
        for argument, live, value in zip(arguments[-len(defaults) :], defaults, node.args.defaults, strict=False):
            yield f"{name}({argument.arg}=)", live, value
    for argument, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        if value is not None and argument.arg in (function.__kwdefaults__ or {}):
            yield f"{name}({argument.arg}=)", (function.__kwdefaults__ or {})[argument.arg], value


def _assignment(node: ast.stmt) -> tuple[str, ast.expr | None]:
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id, node.value
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id, node.value
    return "", None


def _names(expression: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)}


def _is_pure(expression: ast.expr, namespace: Mapping[str, Any]) -> bool:
    if isinstance(expression, ast.Name):
        return True
    nodes = list(ast.walk(expression))
    names = [node.id for node in nodes if isinstance(node, ast.Name)]
    return all(isinstance(node, _PURE) for node in nodes) and all(literal(namespace[name]) for name in names)


def _differs(live: Any, now: Any) -> bool:
    one, other = digest(live, {}), digest(now, {})
    return one != other or (one.startswith("<") and one.endswith(">"))

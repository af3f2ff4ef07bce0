"""Which global names a block of source needs: while it is defined, or once it is called. Runs in the kernel."""

from __future__ import annotations

import ast
import dis
import symtable
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import CodeType

_COMPREHENSIONS = ("listcomp", "setcomp", "dictcomp", "genexpr")


@dataclass
class Names:
    """Names in order of appearance (dicts as ordered sets). `optional` ones only stand in unevaluated annotations."""

    when_defined: dict[str, None] = field(default_factory=dict)
    when_called: dict[str, None] = field(default_factory=dict)
    optional: dict[str, None] = field(default_factory=dict)
    modules: dict[str, None] = field(default_factory=dict)
    dotted: dict[str, None] = field(default_factory=dict)
    texts: dict[str, int] = field(default_factory=dict)


def names_of(source: str, annotations_are_text: bool = False) -> Names:
    """Analyse a block. Under `from __future__ import annotations` names in annotations are optional."""
    names, tree = Names(), ast.parse(source)
    for name, is_immediate in _globals(symtable.symtable(source, "<block>", "exec"), True):
        (names.when_defined if is_immediate else names.when_called)[name] = None
    for name in _read_before_bound(compile(tree, "<block>", "exec", dont_inherit=True)):
        names.when_defined[name] = None
    _look_at_annotations(tree, names, annotations_are_text)
    _look_at_nodes(tree, names)
    for name in names.when_defined:
        names.when_called.pop(name, None)
    return names


def _globals(table: symtable.SymbolTable, is_immediate: bool) -> Iterator[tuple[str, bool]]:
    for symbol in table.get_symbols():
        if table.get_type() == "module":
            wanted = symbol.is_referenced()
        else:
            wanted = symbol.is_global() and (symbol.is_referenced() or symbol.is_declared_global())
        if wanted:
            yield symbol.get_name(), is_immediate and table.get_type() in ("module", "class", "function")
    for child in table.get_children():
        runs_now = child.get_type() == "class" or child.get_name() in _COMPREHENSIONS
        yield from _globals(child, is_immediate and runs_now)


def _read_before_bound(code: CodeType) -> Iterator[str]:
    """`model = model` in a class body: symtable calls the name local, but its first read finds the global."""
    for constant in code.co_consts:
        if not isinstance(constant, CodeType):
            continue
        yield from _read_before_bound(constant)
        bound = {"__module__", "__qualname__", "__name__", "__firstlineno__", "__static_attributes__"}
        for instruction in dis.get_instructions(constant):
            if instruction.opname == "STORE_NAME":
                bound.add(instruction.argval)
            elif instruction.opname == "LOAD_NAME" and instruction.argval not in bound:
                yield instruction.argval


def _look_at_annotations(tree: ast.Module, names: Names, are_text: bool) -> None:
    annotations = list(_annotations(tree))
    inside = {id(part) for annotation in annotations for part in ast.walk(annotation)}
    outside = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in inside}
    for annotation in annotations:
        for part in ast.walk(annotation):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                names.optional.update(dict.fromkeys(_names_in_text(part.value)))
            elif isinstance(part, ast.Name) and are_text and part.id not in outside:
                names.when_defined.pop(part.id, None)
                names.optional[part.id] = None


def _annotations(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            if isinstance(found := getattr(node, name, None), ast.AST):
                yield found


def _names_in_text(text: str) -> list[str]:
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError:
        return []
    return [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]


def _look_at_nodes(tree: ast.Module, names: Names) -> None:
    documents = set(_docstrings(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.modules.update(dict.fromkeys(alias.name for alias in node.names))
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.modules.update(dict.fromkeys([node.module, *(f"{node.module}.{a.name}" for a in node.names)]))
        elif isinstance(node, ast.Attribute) and (dotted := _dotted(node)):
            names.dotted[dotted] = None
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            names.texts.setdefault(node.value, node.lineno)


def _docstrings(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            yield id(body[0].value)


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        root = _dotted(node.value)
        return root and f"{root}.{node.attr}"
    return ""

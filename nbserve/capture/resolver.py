"""From live objects to blocks of app.py: what each name is, where its source stands, what it needs. In the kernel."""

from __future__ import annotations

import ast
import types
from collections.abc import Mapping
from typing import Any

from nbserve.capture.artifacts import CannotPickle, Files, Pickled, dump, is_of_cells
from nbserve.capture.blocks import Block, Use
from nbserve.capture.cells import Cells, Definition, Definition_node
from nbserve.capture.closures import factory, free_values
from nbserve.capture.decorated import decorated
from nbserve.capture.importing import import_of, is_code, is_importable, is_typing, written_import
from nbserve.capture.literals import literal
from nbserve.capture.names import names_of
from nbserve.capture.needs import resolve_needs
from nbserve.capture.patches import patched_methods, patched_values
from nbserve.capture.refusals import refusal, undefined, unpicklable
from nbserve.capture.stale import origins, refuse_stale
from nbserve.errors import CaptureError

FUTURE_ANNOTATIONS = 0x1000000

_REFILL: dict[type, str] = {
    dict: '{0}.clear()\n{0}.update({1}("{0}"))',
    list: '{0}[:] = {1}("{0}")',
    set: '{0}.clear()\n{0}.update({1}("{0}"))',
}


class Resolver:
    """Holds one block per object. Objects are told apart by identity: a name may have been bound twice."""

    def __init__(self, namespace: Mapping[str, Any], cells: Cells) -> None:
        self.namespace = namespace
        self.cells = cells
        self.blocks: list[Block] = []
        self.artifacts: dict[Block, tuple[Any, Use | None]] = {}
        self.modules: set[str] = set()
        self.texts: dict[str, Use | None] = {}
        self.annotations_are_text = False
        self.reader = "artifact" if "artifact" not in namespace else "_artifact"
        self._by_object: dict[int, Block] = {}
        self._by_text: dict[tuple[str, str], Block] = {}
        self._by_alias: dict[tuple[str, str], Block] = {}
        self._keep: list[Any] = []

    def named(self, name: str, use: Use | None) -> Block:
        """The block after which `name` has the value that it has in the notebook."""
        if name not in self.namespace:
            raise undefined(name, use)
        block = self.block_of(self.namespace[name], name, use)
        return block if block.name == name or block.is_import else self._alias(name, block)

    def current(self) -> dict[str, Block]:
        """The block of each name's present value."""
        found = {}
        for name in {block.name for block in self.blocks}:
            if name in self.namespace and (block := self._by_object.get(id(self.namespace[name]))) is not None:
                found[name] = block
        return found

    def block_of(self, obj: Any, name: str, use: Use | None) -> Block:
        """The block that makes this object; `name` is the name it is needed under."""
        known = self._by_object.get(id(obj))
        if known is not None and not known.is_import:
            return known
        self._refuse_notebook_objects(obj, name, use)
        if (text := literal(obj)) is not None:
            return self._literal(obj, name, text)
        if (imported := import_of(obj, name, self.cells)) is not None:
            return self.imported(*imported, name)
        return self._code(obj, name, use) or self._artifact(obj, name, use)

    def refer(self, obj: Any, use: Use | None) -> tuple[str, Block]:
        """How a pickle finds a class or function of a cell: its path in app.py."""
        outer, _, inner = getattr(obj, "__qualname__", "").partition(".")
        if inner and "<locals>" not in inner and _path(self.namespace.get(outer), inner) is obj:
            block = self.named(outer, use)
            return f"{outer}.{inner}", block
        name = getattr(obj, "__name__", "function")
        block = self.block_of(obj, name if name.isidentifier() else self._free_name("function"), use)
        return block.name, block

    def _literal(self, obj: Any, name: str, text: str) -> Block:
        is_shared = isinstance(obj, list | dict | set)
        if (name, text) in self._by_alias:
            return self._by_alias[name, text]
        block = self._add(Block(name, f"{name} = {text}"), obj if is_shared else None)
        if not is_shared:
            self._by_alias[name, text] = block
        self._mark(block)
        if isinstance(obj, str):
            self.texts.setdefault(obj, None)
        return block

    def imported(self, module: str, text: str, name: str) -> Block:
        """The block of an import statement."""
        self.modules.add(module)
        return self._by_alias.setdefault((name, text), Block(name, text, is_import=True))

    def _alias(self, name: str, block: Block) -> Block:
        key = (name, block.name)
        if key not in self._by_alias:
            self._by_alias[key] = self._add(Block(name, f"{name} = {block.name}", first=[block]), None)
        return self._by_alias[key]

    def _code(self, obj: Any, name: str, use: Use | None) -> Block | None:
        if (wrapped := decorated(obj, name, self.cells)) is not None:
            return self._source(wrapped, obj, wrapped.node.name, use)  # type: ignore[attr-defined]
        if isinstance(obj, type) and is_of_cells(obj):
            return self._class(obj, name, use)
        if isinstance(obj, types.FunctionType) and is_of_cells(obj):
            return self._function(obj, name, use)
        if is_typing(obj) and (found := self._assignment(name, obj)) is not None:
            return self._source(found, obj, name, use)
        return None

    def _class(self, cls: type, name: str, use: Use | None) -> Block:
        if "<locals>" in cls.__qualname__:
            raise refusal(
                cls.__name__, "it is a class made inside a function", use, "Define it at the top level of a cell."
            )
        outer, _, inner = cls.__qualname__.partition(".")
        if inner and _path(self.namespace.get(outer), inner) is cls:
            block = self.named(outer, use)
            return self._add(Block(name, f"{name} = {cls.__qualname__}", first=[block]), cls)
        found = self.cells.of_class(cls)
        if found is not None:
            refuse_stale(cls, found, self.namespace)
            return self._patched(self._source(found, cls, cls.__name__, use), cls, found, use)
        for written in (cls.__name__, name):
            if (found := self._assignment(written, cls)) is not None:
                return self._source(found, cls, written, use)
        raise refusal(cls.__name__, "the cell that defines this class is not known", use, "Run that cell again.")

    def _patched(self, block: Block, cls: type, found: Definition, use: Use | None) -> Block:
        """Repeat what was done to the class after its statement, such as `Net.forward = faster_forward`."""
        lines = [f"{cls.__name__}.{name} = {text}" for name, text in patched_values(cls, found).items()]
        for name, function in patched_methods(cls, found).items():
            method = self.block_of(function, function.__name__, use)
            block.first.append(method)
            lines.append(f"{cls.__name__}.{name} = {method.name}")
        block.text = "\n\n".join([block.text, *lines])
        return block

    def _function(self, function: types.FunctionType, name: str, use: Use | None) -> Block:
        found = self.cells.of_code(function.__code__)
        if found is None:
            where = f"the source of {function.__qualname__} is not known: its cell was changed, or it was made by exec"
            raise refusal(name, where, use, "Run the cell that defines it again.")
        inside = any(isinstance(part, Definition_node | ast.Lambda) for part in found.path)
        if not inside and isinstance(found.node, ast.FunctionDef | ast.AsyncFunctionDef):
            refuse_stale(function, found, self.namespace)
            return self._source(found, function, found.node.name, use)
        return self._closure(function, found, name, use)

    def _closure(self, function: types.FunctionType, found: Definition, name: str, use: Use | None) -> Block:
        block = self._add(Block(name, seen=function), function)
        arguments, own = {}, {name}
        for free, value in free_values(function).items():
            if free == "__class__":
                raise refusal(name, "it is a method of a class", use, "Use the class in your handler instead.")
            arguments[free], needed = self._argument(value, free, use)
            block.first += needed
            own |= {part.name for part in needed}
        block.text, block.line = factory(name, found, arguments)
        block.label = found.cell.label
        resolve_needs(self, block, names_of(block.text), found, own | set(found_names(block.text)), {})
        return block

    def _argument(self, value: Any, free: str, use: Use | None) -> tuple[str, list[Block]]:
        if (text := literal(value)) is not None and not isinstance(value, list | dict | set):
            return text, []
        bound = next(
            (name for name, known in self.namespace.items() if known is value and not name.startswith("_")), None
        )
        block = self.named(bound, use) if bound else self.block_of(value, self._free_name(free), use)
        return block.name, [block]

    def _source(self, found: Definition, obj: Any, name: str, use: Use | None) -> Block:
        text, line = _whole(found)
        if (known := self._by_text.get((name, text))) is not None:
            self._by_object[id(obj)] = known
            self._keep.append(obj)
            return known
        block = self._add(
            Block(name, text, found.cell.label, line, seen=obj, origins=origins(obj, found, self.namespace)), obj
        )
        self._by_text[name, text] = block
        are_text = self._has_future(obj)
        resolve_needs(self, block, names_of(text, are_text), found, {name}, _overrides(obj, found.node, self.namespace))
        return block

    def _artifact(self, obj: Any, name: str, use: Use | None) -> Block:
        if is_code(obj) and not isinstance(obj, type | types.FunctionType) and is_importable(obj):
            return self.imported(obj.__module__, f"import {obj.__module__}", name)
        name = name if name.isidentifier() else self._free_name("object")
        block = self._add(Block(name, f'{name} = {self.reader}("{name}")'), obj)
        self._mark(block)
        self.artifacts[block] = (obj, use)
        needed: list[Block] = []
        try:
            pickled = self.pickle(block, Files(), {}, needed)
        except CaptureError:
            if (imported := written_import(obj, name, self.cells)) is None:
                raise
            return self._replace_by_import(block, *imported)
        self.modules |= pickled.modules
        if needed and type(obj) in _REFILL:
            self._fill_later(block, obj, needed)
        else:
            block.first += needed
        return block

    def _fill_later(self, block: Block, obj: Any, needed: list[Block]) -> None:
        """A registry holds functions whose decorators put them there: it has to exist, empty, before they do."""
        block.text = f"{block.name} = {type(obj).__name__}()"
        filled = self._add(Block("", _REFILL[type(obj)].format(block.name, self.reader), first=[block, *needed]), None)
        block.later.append(filled)

    def pickle(self, block: Block, files: Files, others: Mapping[int, str], needed: list[Block]) -> Pickled:
        """Pickle an artifact; the blocks of the code it refers to are added to `needed`."""
        obj, use = self.artifacts[block]

        def refer(part: Any) -> str:
            path, found = self.refer(part, use)
            needed.append(found)
            return path

        try:
            return dump(block.name, obj, refer, others, files)
        except CannotPickle as failed:
            raise unpicklable(block.name, obj, failed.culprit, failed.error, use) from failed.error

    def _replace_by_import(self, block: Block, module: str, text: str) -> Block:
        del self.artifacts[block]
        self.modules.add(module)
        block.text, block.label, block.is_import = text, None, True
        return block

    def _assignment(self, name: str, obj: Any) -> Definition | None:
        found = self.cells.binder(name)
        is_assigned = found is not None and type(found.node).__name__ in ("Assign", "AnnAssign", "TypeAlias")
        return found if is_assigned and self.namespace.get(name) is obj else None

    def _refuse_notebook_objects(self, obj: Any, name: str, use: Use | None) -> None:
        module = type(obj).__module__.partition(".")[0]
        history = (self.namespace.get("_ih"), self.namespace.get("_oh"))
        if module in ("IPython", "ipykernel") or (isinstance(obj, list | dict) and any(obj is one for one in history)):
            raise refusal(name, "it belongs to the notebook itself", use, "Keep what you need from it in a variable.")

    def _has_future(self, obj: Any) -> bool:
        functions = [obj, *(vars(obj).values() if isinstance(obj, type) else ())]
        flags = [part.__code__.co_flags for part in functions if isinstance(part, types.FunctionType)]
        are_text = any(flag & FUTURE_ANNOTATIONS for flag in flags)
        if not flags:
            are_text = type(self.namespace.get("annotations")).__name__ == "_Feature"
        self.annotations_are_text |= are_text
        return are_text

    def _mark(self, block: Block) -> None:
        found = self.cells.binder(block.name)
        if found is not None:
            block.label, block.line = found.cell.label, found.line

    def _add(self, block: Block, obj: Any) -> Block:
        block.age = len(self.blocks)
        self.blocks.append(block)
        if obj is not None:
            self._by_object[id(obj)] = block
            self._keep.append(obj)
        return block

    def _free_name(self, wish: str) -> str:
        taken = {block.name for block in self.blocks} | set(self.namespace)
        number = 1
        while f"_{wish.strip('_')}_{number}" in taken:
            number += 1
        return f"_{wish.strip('_')}_{number}"


def found_names(text: str) -> list[str]:
    """The names that the statements of a text bind."""
    names = []
    for node in ast.parse(text).body:
        names += [node.name] if isinstance(node, Definition_node) else []
        names += [target.id for target in getattr(node, "targets", []) if isinstance(target, ast.Name)]
    return names


def _whole(found: Definition) -> tuple[str, int]:
    """The source as a top-level statement. One that stood inside an `if` keeps its indentation, under an `if`."""
    text = found.source
    return (f"if True:\n{text}", found.line - 1) if text[:1].isspace() else (text, found.line)


def _overrides(obj: Any, node: ast.AST, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Base classes and metaclass that were redefined after the class was made: the class still has the old ones."""
    if not isinstance(node, ast.ClassDef) or not isinstance(obj, type):
        return {}
    pairs = list(zip(node.bases, obj.__bases__, strict=False)) if len(node.bases) == len(obj.__bases__) else []
    pairs += [(keyword.value, type(obj)) for keyword in node.keywords if keyword.arg == "metaclass"]
    return {
        written.id: live
        for written, live in pairs
        if isinstance(written, ast.Name) and namespace.get(written.id) is not live and live.__name__ == written.id
    }


def _path(obj: Any, path: str) -> Any:
    for part in path.split("."):
        obj = getattr(obj, part, None)
    return obj

"""Where a name of the notebook was defined: the texts of the cells that ran, newest first. Runs in the kernel."""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from nbserve.bundle.markers import first_line
from nbserve.capture.samecode import code_inside, code_objects, same_code

Definition_node = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_MAGIC = re.compile(r"\s*(?:[\w.,\s]+=\s*)?[%!]|.*\?\s*$")
_CELL_MAGIC = re.compile(r"\s*(?:# )?%%")


@dataclass(frozen=True)
class Cell:
    """A cell as Python that parses: magic lines are `pass`, line numbers are those of the cell."""

    label: str
    text: str

    @property
    def tree(self) -> ast.Module:
        return _parse(self.text)

    def lines(self, first: int, last: int) -> str:
        return "\n".join(self.text.splitlines()[first - 1 : last])


@dataclass(frozen=True)
class Definition:
    """A statement of a cell; `path` are the compound statements around it, outermost first."""

    cell: Cell
    node: ast.AST
    path: tuple[ast.AST, ...] = ()

    @property
    def line(self) -> int:
        return first_line(self.node)

    @property
    def source(self) -> str:
        """Its whole lines as they stand in the cell, indentation included."""
        node: Any = self.node
        text = self.cell.lines(self.line, node.end_lineno)
        starts_line = not self.cell.text.splitlines()[self.line - 1][: node.col_offset].strip("@ \t")
        return text if starts_line else ast.get_source_segment(self.cell.text, node) or text

    @property
    def where(self) -> str:
        return f"{self.cell.label}, line {self.line}"


class Cells:
    """The cell that is served, the history IPython keeps in `In`, and the files that functions say they come from."""

    def __init__(self, namespace: Mapping[str, Any], cell: tuple[str, str] | None) -> None:
        self._notebook = _notebook_name(namespace, cell)
        self._history = list(self._from_history(namespace))
        if cell is not None:
            self._history.insert(0, Cell(cell[1], runnable(cell[0])))
        elif script := namespace.get("__file__"):
            self._history.insert(0, Cell(Path(script).name, runnable("".join(linecache.getlines(script)))))
        self._labels = {_key(known.text): known.label for known in reversed(self._history)}

    def binder(self, name: str) -> Definition | None:
        """The newest top-level statement that binds the name."""
        return next(self.binders(name), None)

    def binders(self, name: str) -> Iterator[Definition]:
        """All top-level statements that bind the name, newest first."""
        word = re.compile(rf"\b{re.escape(name)}\b")
        for cell in self._history:
            if word.search(cell.text):
                yield from (found for found in reversed(list(_statements(cell))) if name in bound_names(found.node))

    def star_imports(self) -> Iterator[str]:
        """Modules that a cell imported with a star, newest first."""
        for cell in self._history:
            if "*" in cell.text:
                for found in _statements(cell):
                    node = found.node
                    if isinstance(node, ast.ImportFrom) and node.names[0].name == "*" and not node.level:
                        yield node.module or ""

    def imported_paths(self, root: str) -> set[str]:
        """Dotted module names under `root` that cells imported as they are: `import xml.dom` binds `xml`."""
        statements = (found.node for found in self.binders(root))
        return {
            alias.name
            for node in statements
            if isinstance(node, ast.Import)
            for alias in node.names
            if alias.asname is None and alias.name.partition(".")[0] == root
        }

    def of_code(self, code: CodeType) -> Definition | None:
        """The def or lambda that was compiled to this code, wherever in a cell it stands."""
        for cell in self._candidates(code.co_filename):
            if any(same_code(code, known) for known in code_objects(cell.tree, code.co_flags, code.co_name)):
                found = _node_of(cell, code)
                if found is not None:
                    return found
        return None

    def of_class(self, cls: type) -> Definition | None:
        """The top-level class statement whose methods are those of the class."""
        written = list(_written_methods(cls))
        flags = functools.reduce(lambda all_flags, code: all_flags | code.co_flags, written, 0)
        for found in self._class_statements(cls, {code.co_filename for code in written}):
            known = code_inside(found.cell.tree, flags, found.node)
            if all(any(same_code(code, other) for other in known) for code in written):
                return found
        return None

    def _class_statements(self, cls: type, files: set[str]) -> Iterator[Definition]:
        cells = [cell for file in sorted(files) for cell in self._of_file(file)]
        for cell in [*cells, *self._history]:
            if cls.__name__ in cell.text:
                for found in reversed(list(_statements(cell))):
                    if isinstance(found.node, ast.ClassDef) and found.node.name == cls.__name__:
                        yield found

    def _candidates(self, filename: str) -> Iterator[Cell]:
        yield from self._of_file(filename)
        yield from self._history

    def _of_file(self, filename: str) -> list[Cell]:
        text = "".join(linecache.getlines(filename))
        if not text:
            return []
        python = runnable(text)
        return [Cell(self._labels.get(_key(python)) or self._file_label(filename), python)]

    def _file_label(self, filename: str) -> str:
        return f"{self._notebook}, an earlier cell" if "ipy" in filename else Path(filename).name

    def _from_history(self, namespace: Mapping[str, Any]) -> Iterator[Cell]:
        history = namespace.get("_ih", namespace.get("In"))
        if not isinstance(history, list):
            return
        for number in range(len(history) - 1, 0, -1):
            if history[number].strip():
                yield Cell(f"{self._notebook}, cell {number}", runnable(_body_of_cell_magic(history[number])))


def _written_methods(cls: type) -> Iterator[CodeType]:
    """The code of methods that the class statement itself defined, without what decorators put around them."""
    for name, value in vars(cls).items():
        function = inspect.unwrap(getattr(value, "__func__", value)) if callable(value) else None
        if isinstance(function, FunctionType) and function.__qualname__ == f"{cls.__qualname__}.{name}":
            code, home = function.__code__, function.__globals__.get("__name__")
            if code.co_name == name and home == "__main__" and not code.co_filename.startswith("<string>"):
                yield code


def runnable(text: str) -> str:
    """The cell with its magic lines replaced by `pass` and its cell magic by a comment; line numbers stay."""
    return _runnable(text)


@functools.lru_cache(maxsize=4096)
def _runnable(text: str) -> str:
    lines = text.splitlines()
    if lines and _CELL_MAGIC.match(lines[0]):
        lines[0] = "#" + lines[0].lstrip("# ")
    for _ in range(len(lines)):
        try:
            ast.parse("\n".join(lines))
        except SyntaxError as error:
            number = (error.lineno or 0) - 1
            if not 0 <= number < len(lines) or not _MAGIC.match(lines[number]):
                return ""
            _blank(lines, number)
        else:
            break
    return "\n".join(lines)


def _blank(lines: list[str], number: int) -> None:
    line = lines[number]
    lines[number] = f"{line[: len(line) - len(line.lstrip())]}pass"
    while line.rstrip().endswith("\\") and number + 1 < len(lines):
        number += 1
        line, lines[number] = lines[number], ""


@functools.lru_cache(maxsize=4096)
def _parse(text: str) -> ast.Module:
    return ast.parse(text)


def bound_names(node: ast.AST) -> set[str]:
    """The names that a top-level statement binds itself."""
    if isinstance(node, Definition_node):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    targets: list[ast.AST] = list(getattr(node, "targets", []))
    targets += [part for field in ("target", "name") if isinstance(part := getattr(node, field, None), ast.AST)]
    targets += [item.optional_vars for item in getattr(node, "items", []) if item.optional_vars is not None]
    return {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}


def _statements(cell: Cell) -> Iterator[Definition]:
    def walk(body: list[ast.stmt], path: tuple[ast.AST, ...]) -> Iterator[Definition]:
        for node in body:
            yield Definition(cell, node, path)
            if isinstance(node, Definition_node):
                continue
            for field in ("body", "orelse", "finalbody"):
                yield from walk(getattr(node, field, []), (*path, node))
            for part in [*getattr(node, "handlers", []), *getattr(node, "cases", [])]:
                yield from walk(part.body, (*path, node))

    yield from walk(cell.tree.body, ())


def _node_of(cell: Cell, code: CodeType) -> Definition | None:
    for node, path in _everything(cell.tree, ()):
        if _is_lambda_of(node, code) or _is_def_of(node, code, cell):
            return Definition(cell, node, path)
    return None


def _is_lambda_of(node: ast.AST, code: CodeType) -> bool:
    if not isinstance(node, ast.Lambda) or code.co_name != "<lambda>":
        return False
    return node.lineno <= code.co_firstlineno <= node.body.lineno and _spans(node, code)


def _is_def_of(node: ast.AST, code: CodeType, cell: Cell) -> bool:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name != code.co_name:
        return False
    return first_line(node) == code.co_firstlineno or _is_only(cell, node.name)


def _is_only(cell: Cell, name: str) -> bool:
    defs = [n for n in ast.walk(cell.tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and n.name == name]
    return len(defs) == 1


def _everything(node: ast.AST, path: tuple[ast.AST, ...]) -> Iterator[tuple[ast.AST, tuple[ast.AST, ...]]]:
    yield node, path
    for child in ast.iter_child_nodes(node):
        yield from _everything(child, (*path, node))


def _spans(node: ast.Lambda, code: CodeType) -> bool:
    """Several lambdas may share a line: the columns of the code tell which one it is, from Python 3.11 on."""
    if not hasattr(code, "co_positions"):
        return True
    columns = [(line, column) for line, _, column, _ in code.co_positions() if line is not None and column is not None]
    body = [(line, column) for line, column in columns if (line, column) >= (node.body.lineno, node.body.col_offset)]
    end = (node.body.end_lineno or 0, node.body.end_col_offset or 0)
    return bool(body) and all(place <= end for place in body)


def _body_of_cell_magic(text: str) -> str:
    """IPython keeps a `%%magic` cell as one call; the cell's own text is its last argument, from line 2 on."""
    if "run_cell_magic(" not in text:
        return text
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return text
    call = tree.body[-1].value if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    if not isinstance(call, ast.Call) or not ast.unparse(call.func).endswith("run_cell_magic"):
        return text
    body = call.args[-1]
    return f"# %%\n{body.value}" if isinstance(body, ast.Constant) and isinstance(body.value, str) else text


def _key(text: str) -> str:
    """What two records of a cell have in common: IPython keeps one with its magics translated, one without."""
    lines = [line for line in text.splitlines() if line.strip() != "pass" and "get_ipython()" not in line]
    return "\n".join(lines[1:] if lines and lines[0].startswith("#%%") else lines).strip()


def _notebook_name(namespace: Mapping[str, Any], cell: tuple[str, str] | None) -> str:
    if cell is not None and "," in cell[1]:
        return cell[1].rpartition(",")[0]
    named = namespace.get("__vsc_ipynb_file__") or namespace.get("__session__") or ""
    return Path(str(named)).name if str(named).endswith(".ipynb") else "notebook"

"""Run the cell under `%%serve` as Jupyter would, and find the handler that it leaves. Runs in the kernel."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from nbserve.errors import CaptureError
from nbserve.handler import Handler
from nbserve.notebook.failure import render_as


@dataclass(frozen=True)
class Ran:
    """A cell that ran: the names of its classes and functions in order, and the value of its last expression."""

    classes: list[str]
    functions: list[str]
    value: Any = None


class CellSyntaxError(Exception):
    """A syntax error of the cell. IPython shows our frames around a real SyntaxError, so this one stands for it."""


def run(shell: InteractiveShell, line: str, body: str) -> Ran:
    """Run the cell in the user's namespace; the `%%serve` line is line 1, as it is in the cell.

    An exception leaves as it is and shows only the user's lines.
    """
    source = shell.transform_cell(f"# %%serve {line}\n{body}")
    filename = shell.compile.cache(source, number(shell), raw_code=f"%%serve {line}\n{body}")
    tree = shell.transform_ast(_parse(shell, source, filename))
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    for statement in tree.body:
        # One by one, as IPython does: compiled together, statements can give other code than alone.
        _execute(shell, shell.compile(ast.Module([statement], []), filename, "exec"))
    value = None
    if isinstance(last, ast.Expr):
        value = _execute(shell, shell.compile(ast.Expression(last.value), filename, "eval"))
    statements = list(_top_level(tree.body))
    return Ran(
        classes=[node.name for node in statements if isinstance(node, ast.ClassDef)],
        functions=[node.name for node in statements if isinstance(node, ast.FunctionDef)],
        value=value,
    )


def find_handler(ran: Ran, namespace: Mapping[str, Any]) -> Any:
    """What the cell wants served: its last expression, else its last handler class, else its last function.

    A helper class or function below the handler class is not taken for it.
    """
    if is_servable(ran.value):
        return ran.value
    for names, fits in ((ran.classes, is_handler_class), (ran.functions, inspect.isfunction)):
        for name in reversed(names):
            if fits(namespace.get(name)):
                return namespace[name]
    raise CaptureError(_nothing_to_serve(ran, namespace))


def is_servable(value: Any) -> bool:
    return is_handler_class(value) or inspect.isfunction(value) or is_module(value)


def is_handler_class(value: Any) -> bool:
    """A class that derives from nbserve.Handler, or one that follows TorchServe's contract."""
    if not isinstance(value, type):
        return False
    return issubclass(value, Handler) or (hasattr(value, "initialize") and hasattr(value, "handle"))


def is_module(value: Any) -> bool:
    """Whether it is an nn.Module; who never imported torch has none."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def label(shell: InteractiveShell) -> str:
    """Where the running cell stands, such as `quickstart.ipynb, cell 7`."""
    notebook = str(shell.user_ns.get("__vsc_ipynb_file__") or shell.user_ns.get("__session__") or "")
    name = Path(notebook).name if notebook.endswith(".ipynb") else "notebook"
    return f"{name}, cell {number(shell)}"


def number(shell: InteractiveShell) -> int:
    """What stands in brackets beside the running cell: [7]."""
    # Not execution_count, which IPython 9 raises before it runs a cell and IPython 8 afterwards.
    return int(shell.displayhook.prompt_count)


def evaluate(shell: InteractiveShell, text: str) -> Any:
    """The value of an expression in the user's namespace."""
    filename = shell.compile.cache(text, number(shell))
    tree = _parse(shell, text, filename, "eval")
    return _execute(shell, shell.compile(tree, filename, "eval"))


def _parse(shell: InteractiveShell, source: str, filename: str, mode: str = "exec") -> Any:
    try:
        return shell.compile.ast_parse(source, filename, mode)
    except SyntaxError as error:
        stand_in = CellSyntaxError(str(error))
        raise render_as(stand_in, shell.SyntaxTB.structured_traceback(type(error), error, [])) from None


def _execute(shell: InteractiveShell, code: Any) -> Any:
    try:
        return eval(code, shell.user_global_ns, shell.user_ns)
    except (Exception, KeyboardInterrupt) as error:
        frames = _below_this_frame(error.__traceback__)
        shown = shell.InteractiveTB.structured_traceback(type(error), error, frames, tb_offset=0)
        render_as(error, shown)
        raise


def _below_this_frame(traceback: TracebackType | None) -> TracebackType | None:
    return traceback.tb_next if traceback is not None else None


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run in the cell's own scope, also those inside its ifs, withs and tries."""
    for node in body:
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for name in ("body", "orelse", "finalbody"):
            yield from _top_level(getattr(node, name, []))
        for handler in getattr(node, "handlers", []):
            yield from _top_level(handler.body)


def _nothing_to_serve(ran: Ran, namespace: Mapping[str, Any]) -> str:
    for name in reversed(ran.classes):
        if _is_module_class(namespace.get(name)):
            return (
                f"{name} is a model, not a handler: end the cell with an instance of it to serve that, "
                "or define a class that derives from nbserve.Handler"
            )
    seen = f" (it defines {', '.join(ran.classes)})" if ran.classes else ""
    return (
        f"the cell has nothing to serve{seen}: define a class that derives from nbserve.Handler or has initialize and "
        "handle, define a function that takes a list of requests, or end the cell with a model such as `net`"
    )


def _is_module_class(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, type) and issubclass(value, torch.nn.Module)

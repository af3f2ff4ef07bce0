"""From objects to the code that runs when they are called, and from code to its lines. Runs in the worker."""

from __future__ import annotations

import dis
import functools
import gc
import inspect
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

_RESUME = dis.opmap.get("RESUME")
_COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")
_MAX_WRAPPERS = 100


def function_of(found: Any, name: str = "") -> types.FunctionType | None:
    """The Python function that runs when `found` is called, past its decorators; None where that is written in C.

    A decorator that does without functools.wraps is seen through when it encloses a function called `name`.
    """
    for _ in range(_MAX_WRAPPERS):
        inner = _inside(found, name)
        if inner is None:
            break
        found = inner
    return found if isinstance(found, types.FunctionType) else None


def attribute(owner: Any, name: str) -> Any:
    """`owner.name` without running a property; raises AttributeError."""
    plain = inspect.getattr_static(owner, name, None)
    return plain if isinstance(plain, (property, functools.cached_property)) else getattr(owner, name)


def lines_of(code: types.CodeType) -> list[int]:
    """The lines on which a tracer can stop, in the order of the code: not that of the `def`, which runs elsewhere."""
    began = _body_offset(code)
    return list(dict.fromkeys(line for _, end, line in code.co_lines() if line and end > began))


def first_line(code: types.CodeType) -> int:
    """The first line that runs when it is called."""
    return next(iter(lines_of(code)), code.co_firstlineno)


def codes_in(file: str) -> list[types.CodeType]:
    """All code from this file that a call can still run, functions inside functions included, in the file's order."""
    functions = [*_living_functions(file), *_named_functions(file)]
    found = {id(code): code for function in functions for code in _with_inner(function.__code__)}
    return sorted(found.values(), key=lambda code: code.co_firstlineno)


def codes_at(codes: Iterable[types.CodeType], line: int) -> list[types.CodeType]:
    """Those that have the line. A comprehension counts as part of the function that has the line too."""
    having = [code for code in codes if line in lines_of(code)]
    return [code for code in having if code.co_name not in _COMPREHENSIONS] or having


def _inside(found: Any, name: str) -> Any:
    """What a class, an instance, a method or a decorator's result runs in its turn; None at the end."""
    if isinstance(found, type):
        return _method_of(found, "__call__", "__init__")
    wrapped = inspect.getattr_static(found, "__wrapped__", None)
    if wrapped is not None:
        return wrapped
    if isinstance(found, types.FunctionType):
        return _enclosed(found, name)
    if isinstance(found, (types.MethodType, staticmethod, classmethod)):
        return found.__func__
    if isinstance(found, property):
        return found.fget
    if isinstance(found, (functools.partial, functools.cached_property)):
        return found.func
    # A module that torch.compile made holds the one that it was made from.
    modules = inspect.getattr_static(found, "_modules", None)
    original = modules.get("_orig_mod") if isinstance(modules, dict) else None
    return original if original is not None else _method_of(type(found), "__call__")


def _method_of(kind: type, *names: str) -> Any:
    """The first of these methods that is written in Python; a torch module's call is its `forward`."""
    wanted = ("forward", *names) if hasattr(kind, "register_forward_hook") else names
    methods = (getattr(kind, name, None) for name in wanted)
    return next((method for method in methods if isinstance(method, types.FunctionType)), None)


def _enclosed(wrapper: types.FunctionType, name: str) -> Any:
    cells = wrapper.__closure__ or () if name != wrapper.__name__ else ()
    functions = (cell.cell_contents for cell in cells if cell != types.CellType())
    return next((found for found in functions if getattr(found, "__name__", None) == name and callable(found)), None)


def _body_offset(code: types.CodeType) -> int:
    """Where the body begins. What comes before belongs to the call: no tracer sees a line there."""
    opcodes = code.co_code[::2]
    return 2 * opcodes.index(_RESUME) + 2 if _RESUME is not None and _RESUME in opcodes else 0


def _living_functions(file: str) -> Iterator[types.FunctionType]:
    for found in gc.get_objects():
        if type(found) is types.FunctionType and found.__code__.co_filename == file:
            yield found


def _named_functions(file: str) -> Iterator[types.FunctionType]:
    """The functions and methods of the module: what the nursery froze is hidden from the garbage collector."""
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) != file:
            continue
        for found in list(vars(module).values()):
            for member in vars(found).values() if isinstance(found, type) else [found]:
                function = None if isinstance(member, type) else function_of(member)
                if function is not None and function.__code__.co_filename == file:
                    yield function


def _with_inner(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _with_inner(constant)

"""Where a worker is to stop: from what a person writes to code objects, and the condition. Runs in the worker."""

from __future__ import annotations

import difflib
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nbserve.errors import DebugError
from nbserve.handler import Handler
from nbserve.worker.debug.codes import attribute, codes_at, codes_in, first_line, function_of, lines_of
from nbserve.worker.debug.stacks import cell_labels, is_user_code, shown_file
from nbserve.worker.tracebacks import summary_of

_LINE = re.compile(r"(?:(?P<file>.*\S)\s*:)?\s*(?P<line>\d+)")
MAX_NAMES_SHOWN = 12


@dataclass(frozen=True)
class Target:
    """A place to stop at: the entry of a function, or one line of all code that has it."""

    text: str
    line: int | None
    codes: tuple[types.CodeType, ...]

    def wants(self, code: types.CodeType) -> bool:
        """Whether a frame of this code is one to stop in. By identity: comparing code compares all its constants."""
        return any(code is wanted for wanted in self.codes)


class ConditionRaised(Exception):
    """The condition of a stop raised; the text says what in one line."""


class Condition:
    """An expression over the variables of the frame to stop in."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        try:
            self._code = compile(self.text, "<condition>", "eval")
        except (SyntaxError, ValueError) as error:
            raise DebugError(f"the condition `{self.text}` is no expression: {summary_of(error)}") from None

    def holds(self, frame: types.FrameType) -> bool:
        # One namespace: a comprehension or lambda in the condition sees only the globals.
        names = {**frame.f_globals, **frame.f_locals}
        try:
            return bool(eval(self._code, names))
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            raise ConditionRaised(f"the condition `{self.text}` raised {summary_of(error)}") from None


def resolve(at: str | None, handler: Any) -> Target:
    """The place that `at` names: a method, function, class or dotted name, a line of the handler's cell, or
    LABEL:LINE of another cell or file; None is the handler's first stage. Raises DebugError, which says what there is.
    """
    wanted = (at or "").strip() or first_stage(handler)
    if found := _LINE.fullmatch(wanted):
        file = _file_of(found["file"], handler) if found["file"] else _home_of(handler)
        return _at_line(file, int(found["line"]))
    return _at_entry(wanted, handler)


def first_stage(handler: Any) -> str:
    """The method of the handler that takes a batch first."""
    in_stages = isinstance(handler, Handler) and type(handler).handle is Handler.handle
    return "preprocess" if in_stages else "handle"


def _at_entry(name: str, handler: Any) -> Target:
    if name == "handle":
        # Where it is not overridden the stages are called without it.
        name = first_stage(handler)
    if name == "initialize":
        raise DebugError("initialize has run already: write breakpoint() into it and serve the cell again")
    function = function_of(_named(name, handler), name.rpartition(".")[2])
    if function is None:
        raise DebugError(f"{name} is not written in Python, so nothing can stop in it: name what calls it, or a line")
    code = function.__code__
    return Target(_text(name, code.co_filename, first_line(code)), None, (code,))


def _at_line(file: str, line: int) -> Target:
    codes = codes_in(file)
    found = codes_at(codes, line)
    if not found:
        raise DebugError(_no_such_line(file, line, codes))
    return Target(_text(found[0].co_name, file, line), line, tuple(found))


def _text(name: str, file: str, line: int) -> str:
    return f"{name} ({shown_file(file)}, line {line})"


def _no_such_line(file: str, line: int, codes: list[types.CodeType]) -> str:
    lines = {each: code.co_name for code in reversed(codes) for each in lines_of(code)}
    place = f"line {line} of {shown_file(file)}"
    if not lines:
        return f"{place} has no code that a request can run: {shown_file(file)} has no functions"
    nearest = min(sorted(lines), key=lambda each: abs(each - line))
    return f"{place} has no code that a request can run; the nearest line that has is {nearest} (in {lines[nearest]})"


def _named(name: str, handler: Any) -> Any:
    """What `name` is in the handler, else in the cells, else in a module that is loaded."""
    first, *rest = name.removeprefix("self.").split(".")
    for owner in (handler, sys.modules.get("app")):
        try:
            found = attribute(owner, first)
        except AttributeError:
            continue
        return _followed(found, first, rest)
    if rest and first in sys.modules:
        return _followed(sys.modules[first], first, rest)
    raise DebugError(_no_such_name(name, first, _names_of(handler)))


def _followed(found: Any, path: str, rest: list[str]) -> Any:
    for part in rest:
        try:
            found = attribute(found, part)
        except AttributeError:
            known = [name for name in dir(found) if not name.startswith("__")]
            raise DebugError(_no_such_name(f"{path}.{part}", part, known)) from None
        path = f"{path}.{part}"
    return found


def _no_such_name(name: str, part: str, known: list[str]) -> str:
    near = difflib.get_close_matches(part, known, n=1)
    hint = f"did you mean {name.removesuffix(part)}{near[0]}?" if near and part in name else ""
    more = f", and {len(known) - MAX_NAMES_SHOWN} more" if len(known) > MAX_NAMES_SHOWN else ""
    there = f"there is {', '.join(known[:MAX_NAMES_SHOWN])}{more}" if known else ""
    return f"there is no {name} to stop in; " + (hint or there or "give a name or a line of the handler's cell")


def _names_of(handler: Any) -> list[str]:
    """Methods of the handler, then functions and classes of the cells."""
    methods = [name for name in dir(handler) if not name.startswith("_") and callable(getattr(type(handler), name, 0))]
    app = vars(sys.modules["app"]) if "app" in sys.modules else {}
    cells = [name for name, found in app.items() if name[0] != "_" and _is_for_users(found)]
    stages = [name for name in ("preprocess", "inference", "postprocess", "handle") if name in methods]
    return list(dict.fromkeys([*stages, *(name for name in methods if name != "initialize"), *cells]))


def _is_for_users(found: Any) -> bool:
    """Whether it is a function or class that somebody may want to stop in: not what nbserve put into the cells."""
    is_ours = str(getattr(found, "__module__", "")).partition(".")[0] == "nbserve"
    return isinstance(found, (types.FunctionType, type)) and not is_ours


def _home_of(handler: Any) -> str:
    """The cell or file in which the handler's class stands."""
    module = sys.modules.get(type(handler).__module__)
    return str(getattr(module, "__file__", ""))


def _file_of(wanted: str, handler: Any) -> str:
    """The cell whose label, or the file whose path, ends with `wanted`."""
    home = _home_of(handler)
    known = list(dict.fromkeys([home, *cell_labels(), *_module_files()]))
    found = [file for file in known if _matches(file, wanted)]
    if not found:
        there = ", ".join(dict.fromkeys(map(shown_file, [home, *cell_labels()])))
        raise DebugError(f"no cell or file here is called {wanted!r}; there is {there}")
    own = [file for file in found if is_user_code(file)] or found
    if len(own) > 1:
        raise DebugError(f"{wanted!r} may be {' or '.join(map(shown_file, own[:5]))}: write more of it")
    return own[0]


def _matches(file: str, wanted: str) -> bool:
    lowered, ending = file.lower(), wanted.lower()
    return lowered == ending or lowered.endswith((f", {ending}", f"/{ending}"))


def _module_files() -> Iterator[str]:
    return (file for module in list(sys.modules.values()) if isinstance(file := getattr(module, "__file__", None), str))

"""What could follow on a debugger's line: pdb's own completion, which needs readline, done without. Worker."""

from __future__ import annotations

import ast
import builtins
import pdb
import re
from collections.abc import Iterable, Mapping
from typing import Any

# An expression up to its last dot, and the beginning of the name after it.
_ATTRIBUTE = re.compile(r"(?P<owner>[^\W\d]\w*(?:\.\w+|\[[^][]*\])*)\.(?P<start>\w*)$")
_NAME = re.compile(r"(?P<start>\w*)$")
# pdb completes the arguments of these as expressions, each release in its own way.
_TAKE_EXPRESSIONS = ("!", "p", "pp", "print", "display", "whatis", "debug")
_HARMLESS = (ast.Expression, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.Constant, ast.UnaryOp, ast.USub)


def completions(debugger: pdb.Pdb, line: str, begin: int, end: int) -> list[str]:
    """What line[begin:end] may become, sorted; private names only after an underscore."""
    text = line[begin:end]
    stripped = line.lstrip()
    indent = len(line) - len(stripped)
    if begin <= indent:
        found = {*_commands(debugger, text), *_expressions(debugger, line, begin, end)}
    else:
        found = {*_arguments(debugger, stripped, text, begin - indent, end - indent)}
        found |= set() if found else {*_expressions(debugger, line, begin, end)}
    return sorted(found)


def _commands(debugger: pdb.Pdb, text: str) -> Iterable[str]:
    names = [name.removeprefix("do_") for name in dir(type(debugger)) if name.startswith("do_")]
    return (name for name in (*names, *debugger.aliases) if name.startswith(text) and (text or name != "EOF"))


def _arguments(debugger: pdb.Pdb, line: str, text: str, begin: int, end: int) -> Iterable[str]:
    """What the command's own completer says, where it has one."""
    command = debugger.parseline(line)[0]
    completer = getattr(debugger, f"complete_{command}", None)
    if not command or completer is None or command in _TAKE_EXPRESSIONS:
        return ()
    try:
        return [item.rstrip() for item in completer(text, line, begin, end) or ()]
    except Exception:
        # Evaluates what stands there, and that may be anything.
        return ()


def _expressions(debugger: pdb.Pdb, line: str, begin: int, end: int) -> Iterable[str]:
    names = _names(debugger)
    before = line[:end]
    if found := _ATTRIBUTE.search(before):
        prefix = before[begin : found.start("start")] if found.start("start") > begin else ""
        known: Iterable[str] = _attributes(found["owner"], names)
    else:
        found = _NAME.search(before)
        prefix, known = "", names
    start = found["start"] if found else ""
    return [prefix + name for name in known if name.startswith(start) and _is_shown(name, start)]


def _is_shown(name: str, start: str) -> bool:
    return name.isidentifier() and (start.startswith("_") or not name.startswith("_"))


def _names(debugger: pdb.Pdb) -> dict[str, Any]:
    frame = getattr(debugger, "curframe", None)
    if frame is None:
        return dict(vars(builtins))
    # Not frame.f_locals: before Python 3.13 reading it undoes what `!x = 1` has set.
    local: Mapping[str, Any] | None = getattr(debugger, "curframe_locals", None)
    return {**vars(builtins), **frame.f_globals, **(frame.f_locals if local is None else local)}


def _attributes(owner: str, names: dict[str, Any]) -> list[str]:
    """The attributes of an expression that calls nothing."""
    try:
        tree = ast.parse(owner, mode="eval")
        if not all(isinstance(node, (*_HARMLESS, ast.expr_context)) for node in ast.walk(tree)):
            return []
        return dir(eval(compile(tree, "<completion>", "eval"), names))
    except Exception:
        # A name that does not exist (yet) has no attributes, whatever the reason.
        return []

"""What a half-written line of the debugger may become."""

from __future__ import annotations

import bdb
import io
import pdb
import sys
from typing import Any

import pytest

from nbserve.worker.debug.codes import lines_of
from nbserve.worker.debug.completion import completions


class Thing:
    shape = (1, 2)
    _secret = 1

    @property
    def broken(self) -> Any:
        raise RuntimeError("never run by completing")


@pytest.fixture
def debugger() -> pdb.Pdb:
    """One that stands in a frame with `thing`, `things` and `_hidden`."""
    made = pdb.Pdb(stdin=io.StringIO(), stdout=io.StringIO(), nosigint=True, readrc=False)
    made.reset()
    made.setup(_frame(Thing()), None)
    made.aliases["rows"] = "p len(things)"
    return made


def _frame(thing: Thing) -> Any:
    things = {"a": [thing], 0: thing}
    _hidden = things
    return sys._getframe()


def after(debugger: pdb.Pdb, line: str, begin: int | None = None) -> list[str]:
    """Completions at the line's end, of what comes after the last of readline's delimiters."""
    if begin is None:
        begin = max(line.rfind(mark) for mark in " ([{=,'!") + 1
    return completions(debugger, line, begin, len(line))


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("unti", ["until"]),
        ("row", ["rows"]),
        ("  unti", ["until"]),
        ("thin", ["thing", "things"]),
        ("p thin", ["thing", "things"]),
        ("pp thing.sh", ["thing.shape"]),
        ("thing.sh", ["thing.shape"]),
        ("p len(thin", ["thing", "things"]),
        ("!x = thing.sh", ["thing.shape"]),
        ("x = thing.br", ["thing.broken"]),
        ("thing._s", ["thing._secret"]),
        ("_hid", ["_hidden"]),
        ("p thing.shape[0].rea", ["real"]),
        ("p things['a'].appe", ["append"]),
        ("p nothing.sh", []),
        ("p thing().sh", []),
        ("p thing.shape.coun", ["thing.shape.count"]),
        ("p isinst", ["isinstance"]),
        ("help unti", ["until"]),
        ("unalias ro", ["rows"]),
        ("down thin", ["thing", "things"]),
    ],
)
def test_a_line_and_what_it_may_become(debugger: pdb.Pdb, line: str, wanted: list[str]) -> None:
    begin = line.rfind("]") + 2 if "]" in line else None
    assert after(debugger, line, begin) == wanted


def test_private_names_come_only_when_asked_for(debugger: pdb.Pdb) -> None:
    assert after(debugger, "thing.") == ["thing.broken", "thing.shape"]
    assert "thing.__class__" in after(debugger, "thing.__")


def test_an_empty_line_offers_commands_and_names(debugger: pdb.Pdb) -> None:
    found = after(debugger, "")
    assert {"where", "up", "interact", "rows", "thing"} <= set(found)
    assert "EOF" not in found


def test_a_whole_expression_may_be_completed_at_once(debugger: pdb.Pdb) -> None:
    assert completions(debugger, "things['a'][0].sh", 0, 17) == ["things['a'][0].shape"]


def test_breakpoint_numbers_and_places(debugger: pdb.Pdb) -> None:
    debugger.onecmd(f"break {pdb.__file__}:{lines_of(pdb.Pdb.do_where.__code__)[0]}")
    try:
        assert after(debugger, "enable ") == [str(len(bdb.Breakpoint.bpbynumber) - 1)]
        assert "thing" in after(debugger, "break thi")
    finally:
        debugger.clear_all_breaks()


def test_what_was_assigned_stays_assigned(debugger: pdb.Pdb) -> None:
    debugger.onecmd("!thing = 5")
    after(debugger, "p thin")
    debugger.onecmd("p thing")
    assert debugger.stdout.getvalue().endswith("5\n")  # type: ignore[attr-defined]


def test_no_frame_yet() -> None:
    debugger = pdb.Pdb(stdin=io.StringIO(), stdout=io.StringIO(), nosigint=True, readrc=False)
    assert "isinstance" in after(debugger, "p isinst")

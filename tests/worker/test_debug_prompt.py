"""The prompt in this process, with a script for its user: quick, and the same in every release of Python."""

from __future__ import annotations

import builtins
import linecache
import queue
import sys
import textwrap
import types
from collections.abc import Iterator
from typing import Any

import pytest

from nbserve.errors import FailedInDebugger
from nbserve.worker.debug.link import Console
from nbserve.worker.debug.worker_pdb import WorkerPdb

LABEL = "story.ipynb, cell 3"
SOURCE = textwrap.dedent("""\
    def inner(value):
        doubled = value * 2
        return doubled


    def outer(stop, value):
        total, bonus = value, 0
        stop()
        total += inner(value)
        for number in range(3):
            total += number
        stop()
        return total + bonus, is_traced()
""")


class Script:
    """A debugger that has its lines ready, in the place of a connection; after them it is gone."""

    def __init__(self, *lines: str) -> None:
        self.replies: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for line in lines:
            self.replies.put({"cmd": "reply", "text": line})
        self.replies.put(None)
        self.is_over = False
        self.shown = ""
        self.prompts: list[str] = []

    def send(self, event: str, **values: Any) -> None:
        if event == "out":
            self.shown += values["text"]
        elif event == "prompt":
            self.prompts.append(values["text"])


class Stops:
    """Notes where it was held, as the worker would tell its server."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self._is_held = False

    def enter(self, frame: types.FrameType, reason: str) -> None:
        if not self._is_held:
            self.told.append(f"{reason} {frame.f_lineno}")
        self._is_held = True

    def leave(self) -> None:
        if self._is_held:
            self.told.append("resumed")
        self._is_held = False

    def detach(self, pdb: WorkerPdb) -> None:
        self.told.append("detached")

    def call_of(self, frame: types.FrameType) -> types.FrameType:
        while frame.f_code is not _called.__code__ and frame.f_back is not None:
            frame = frame.f_back
        return frame


def _called(function: Any, *arguments: Any) -> Any:
    return function(*arguments)


@pytest.fixture(autouse=True)
def cell() -> Iterator[None]:
    before = sys.gettrace()
    linecache.cache[LABEL] = (len(SOURCE), None, SOURCE.splitlines(keepends=True), LABEL)
    yield
    del linecache.cache[LABEL]
    sys.settrace(before)


class Ran:
    """One call of `outer` under a script."""

    def __init__(self, *lines: str, way: str = "stop_at") -> None:
        self.script = Script(*lines)
        self.stops = Stops()
        self.pdb = WorkerPdb(Console(self.script), self.stops)  # type: ignore[arg-type]
        names: dict[str, Any] = {"is_traced": lambda: sys.gettrace() is not None, "__name__": "app"}
        exec(compile(SOURCE, LABEL, "exec"), names)
        self.error: BaseException | None = None
        self.result = None
        self._way = way
        try:
            self.result = _called(names["outer"], self._stop, 5)
        except FailedInDebugger as error:
            self.error = error
        assert sys.gettrace() is None
        self.shown = self.script.shown

    def _stop(self) -> None:
        frame = sys._getframe(1)
        if not self.pdb.is_over and not self.pdb.is_stepping_in(frame):
            getattr(self.pdb, self._way)(frame, "breakpoint")


def test_going_on_leaves_nothing() -> None:
    ran = Ran("p total", "c", "p total", "c")
    assert ran.shown.count("story.ipynb, cell 3(") == 2
    assert "\n5\n" in ran.shown
    assert "\n18\n" in ran.shown
    assert ran.result == (18, False)
    assert ran.stops.told == ["breakpoint 8", "resumed", "breakpoint 12", "resumed"]


def test_steps_stay_in_the_users_code() -> None:
    ran = Ran("n", "s", "n", "n", "n", "w", "q")
    for line in ("total += inner(value)", "--Call--", "doubled = value * 2", "return doubled", "--Return--"):
        assert line in ran.shown
    assert "test_debug_prompt.py" not in ran.shown.replace("_called()", "")[: ran.shown.index("--Call--")]
    assert ran.result == (18, False)
    assert ran.stops.told == ["breakpoint 8", "detached", "resumed"]


def test_stepping_off_the_end_goes_on() -> None:
    ran = Ran("unt 12", "n", "n", "n", "n", "p 'the script has lines left'")
    assert ran.stops.told == ["breakpoint 8", "resumed"]
    assert "--Return--" in ran.shown
    assert len(ran.script.prompts) == 4
    assert ran.result == (18, True)


@pytest.mark.parametrize("place", ["2", "cell 3:2", "inner", "cell 3:2, value == 5"])
def test_breakpoints(place: str) -> None:
    ran = Ran(f"b {place}", "c", "p value", "cl 1", "c", "c")
    assert "Breakpoint 1 at story.ipynb, cell 3:" in ran.shown
    assert "cell 3(2)inner()" in ran.shown
    assert "\n5\n" in ran.shown
    assert ran.stops.told == ["breakpoint 8", "resumed", "breakpoint 2", "resumed", "breakpoint 12", "resumed"]
    assert ran.result == (18, False)


def test_commands_and_a_temporary_breakpoint() -> None:
    ran = Ran("tbreak 11", "commands", "p number + 70", "end", "c", "c", "c")
    assert "\n70\n" in ran.shown
    assert ran.script.prompts[1:4] == ["(Pdb) ", "(com) ", "(com) "]
    assert ran.result == (18, False)


def test_assignments_reach_the_frame() -> None:
    ran = Ran("total = 100", "added = 1", "p total + added", "n", "total += 1000", "c", "c")
    assert "\n101\n" in ran.shown
    assert ran.result == (1113, False)


def test_assignments_reach_outer_frames() -> None:
    ran = Ran("b inner", "c", "u", "bonus = 200", "cl 1", "c", "c")
    assert ran.result == (218, False)


def test_statements_of_several_lines_and_closures() -> None:
    ran = Ran("def more(n):", "    return n + total", "", "more(1)", "[n + total for n in range(2)]", "q")
    assert ran.script.prompts[1:3] == ["...   ", "...   "]
    assert "\n6\n[5, 6]\n" in ran.shown


def test_interact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "ps1", "In : ", raising=False)
    ran = Ran("interact", "total + 1", "def f():", "    return total", "", "f()", "1/0", "exit()", "p total", "q")
    assert "\n6\n5\n" in ran.shown
    assert ran.script.prompts[1] == ">>> "
    assert ran.shown.rstrip().endswith("5")
    assert "_" not in vars(builtins)
    assert not hasattr(sys, "last_value")


def test_displays_compare_what_cannot_be_compared() -> None:
    ran = Ran(
        "class Odd:",
        "    def __init__(self, n): self.n = n",
        "    def __repr__(self): return f'Odd({self.n})'",
        "    def __ne__(self, other): raise ValueError",
        "",
        "display Odd(total)",
        "b 11",
        "c",
        "q",
    )
    assert "display Odd(total): Odd(15)  [old: Odd(5)]" in ran.shown


def test_fail() -> None:
    ran = Ran("n", "fail for a reason")
    assert str(ran.error) == "for a reason"
    assert ran.stops.told[-1] == "resumed"


def test_completions_help_and_what_is_not_possible() -> None:
    ran = Ran("total.bit?", "help", "run", "debug inner(1)", "s", "q", "p print('x')", "!1/0", "q")
    for text in ("total.bit_count", "fail [text]", "cannot be started again", "ENTERING", "LEAVING", "x\nNone"):
        assert text in ran.shown
    assert "*** ZeroDivisionError" in ran.shown


def test_a_user_who_is_gone_at_any_prompt() -> None:
    for lines in (
        [],
        ["commands"],
        ["b inner", "commands 1"],
        ["def f():"],
        ["interact"],
        ["debug 1"],
        ["b inner", "c"],
    ):
        ran = Ran(*lines)
        assert ran.result == (18, False)
        assert ran.stops.told[-2:] == ["detached", "resumed"]


def test_a_prompt_at_the_next_line_of_the_users() -> None:
    ran = Ran("q", way="stop_soon")
    assert ran.stops.told[0] == "breakpoint 9"
    assert "total += inner(value)" in ran.shown
    assert ran.result == (18, False)


def test_a_prompt_where_an_error_was_raised() -> None:
    script, stops = Script("p value", "n", "u", "c"), Stops()
    pdb = WorkerPdb(Console(script), stops)  # type: ignore[arg-type]
    names: dict[str, Any] = {}
    exec(compile("def broken(value):\n    return 1 / value\n", LABEL, "exec"), names)
    try:
        _called(names["broken"], 0)
    except ZeroDivisionError as error:
        pdb.stop_after(error, "exception", "it broke", "only c goes on")
    assert script.shown.startswith("it broke\n")
    assert "cell 3(2)broken()" in script.shown
    assert "\n0\n*** only c goes on\n" in script.shown
    assert stops.told == ["exception 2", "resumed"]

"""What a person may name as the place to stop at, and what is said when it is not there."""

from __future__ import annotations

import importlib
import linecache
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nbserve.bundle.load import load_handler
from nbserve.errors import DebugError
from nbserve.handler import Handler
from nbserve.worker.debug.codes import lines_of
from nbserve.worker.debug.targets import Condition, ConditionRaised, Target, resolve

SOURCE = '''
import functools
# %% notes.ipynb, cell 1, line 1
import torch
# %% notes.ipynb, cell 1, line 3
def scale(x):
    """Not code."""
    return x * 2
# %% notes.ipynb, cell 1, line 7
def logged(function):
    def wrapper(*args):
        return function(*args)
    return wrapper
# %% notes.ipynb, cell 1, line 12
@logged
def shout(text):
    return text.upper()
# %% notes.ipynb, cell 1, line 16
class Net(torch.nn.Module):
    def forward(self, x):
        return scale(x)
# %% notes.ipynb, cell 1, line 20
net = Net()
# %% notes.ipynb, cell 2, line 2
import nbserve.handler as nbserve
# %% notes.ipynb, cell 2, line 3
class Served(nbserve.Handler):
    def initialize(self, context):
        self.model = net
        self.pick = lambda row: row[0]

    @torch.no_grad()
    def preprocess(
        self, requests
    ):
        assert requests
        rows = [
            self.pick(row) for row in requests
        ]
        return torch.tensor(rows)

    @staticmethod
    def check(x): return x

    @classmethod
    def make(cls):
        return cls()

    @functools.cached_property
    def labels(self):
        return ["a"]
'''
PLAIN = """
class Plain:
    def handle(self, data, context):
        return data
"""


@pytest.fixture
def load(bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Loads a bundle of this source here, as a worker does, and gives the handler."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(linecache, "cache", {})  # where a worker knows its cells from: only one bundle's

    def handler(source: str = SOURCE) -> Any:
        made = load_handler(bundle(source))()
        if isinstance(made, Handler):
            made.initialize(None)  # type: ignore[arg-type]
        return made

    yield handler
    sys.modules.pop("app", None)


def lines_stopped_at(target: Target, call: Callable[[], Any]) -> list[tuple[str, int]]:
    """What a tracer that looks for the target sees during a call: function and line."""
    seen = []

    def trace(frame: types.FrameType, event: str, _: Any) -> Any:
        if not target.wants(frame.f_code):
            return None
        if event == "line" and target.line in (None, frame.f_lineno):
            seen.append((frame.f_code.co_name, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return seen


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (None, "preprocess (notes.ipynb, cell 2, line 12)"),
        ("preprocess", "preprocess (notes.ipynb, cell 2, line 12)"),
        ("handle", "preprocess (notes.ipynb, cell 2, line 12)"),
        ("self.preprocess", "self.preprocess (notes.ipynb, cell 2, line 12)"),
        ("Served.preprocess", "Served.preprocess (notes.ipynb, cell 2, line 12)"),
        ("inference", "inference (nbserve/handler.py, line "),
        ("check", "check (notes.ipynb, cell 2, line 19)"),
        ("make", "make (notes.ipynb, cell 2, line 23)"),
        ("labels", "labels (notes.ipynb, cell 2, line 27)"),
        ("scale", "scale (notes.ipynb, cell 1, line 5)"),
        ("shout", "shout (notes.ipynb, cell 1, line 14)"),
        ("logged", "logged (notes.ipynb, cell 1, line 8)"),
        ("Net", "Net (notes.ipynb, cell 1, line 18)"),
        ("Net.forward", "Net.forward (notes.ipynb, cell 1, line 18)"),
        ("net", "net (notes.ipynb, cell 1, line 18)"),
        ("self.model.forward", "self.model.forward (notes.ipynb, cell 1, line 18)"),
        ("torch.nn.Linear.forward", "torch.nn.Linear.forward (torch/nn/modules/linear.py, line "),
        ("torch.nn.Linear", "torch.nn.Linear (torch/nn/modules/linear.py, line "),
        ("12", "preprocess (notes.ipynb, cell 2, line 12)"),
        ("cell 1:18", "forward (notes.ipynb, cell 1, line 18)"),
        ("Cell 1: 18", "forward (notes.ipynb, cell 1, line 18)"),
        ("notes.ipynb, cell 1:5", "scale (notes.ipynb, cell 1, line 5)"),
        ("cell 1:9", "wrapper (notes.ipynb, cell 1, line 9)"),
    ],
)
def test_a_place_by_its_name(load: Callable[[], Any], at: str | None, text: str) -> None:
    assert resolve(at, load()).text.startswith(text)


def test_the_handler_of_torchserve_starts_with_handle(load: Callable[[str], Any]) -> None:
    target = resolve(None, load(PLAIN))
    assert target.text.startswith("handle (")
    assert target.text.endswith("app.py, line 4)")


@pytest.mark.parametrize(
    ("at", "text"),
    [
        ("preproces", "there is no preproces to stop in; did you mean preprocess?"),
        ("Net.forwar", "there is no Net.forwar to stop in; did you mean Net.forward?"),
        ("nonsense", "there is preprocess, inference, postprocess, handle, "),
        ("initialize", "initialize has run already: write breakpoint() into it"),
        ("torch.relu", "torch.relu is not written in Python"),
        ("torch", "torch is not written in Python"),
        (
            "11",
            "line 11 of notes.ipynb, cell 2 has no code that a request can run; the nearest line that has is 12 (in",
        ),
        ("4", "the nearest line that has is 5 (in initialize)"),
        ("900", "the nearest line that has is 27 (in labels)"),
        ("cell 7:3", "no cell or file here is called 'cell 7'; there is notes.ipynb, cell 2, notes.ipynb, cell 1"),
    ],
)
def test_a_place_that_is_not_there(load: Callable[[], Any], at: str, text: str) -> None:
    with pytest.raises(DebugError) as caught:
        resolve(at, load())
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("at", "seen"),
    [
        (None, ("preprocess", 12)),
        ("16", ("preprocess", 16)),
        ("6", ("<lambda>", 6)),
        ("cell 1:5", ("scale", 5)),
        ("model", ("forward", 18)),
    ],
)
def test_a_tracer_stops_where_it_was_said(load: Callable[[], Any], at: str | None, seen: tuple[str, int]) -> None:
    handler = load()
    target = resolve(at, handler)
    stops = lines_stopped_at(target, lambda: handler.model(handler.preprocess([[1.0], [2.0]])))
    assert stops[0] == seen
    assert f"line {seen[1]})" in target.text


def test_a_stage_that_is_overridden_is_not_the_default_one(load: Callable[[], Any]) -> None:
    target = resolve("preprocess", load())
    assert not target.wants(Handler.preprocess.__code__)


def test_a_module_that_torch_compiled_is_the_one_that_was_written(load: Callable[[], Any]) -> None:
    import torch

    handler = load()
    handler.model = torch.compile(handler.model, backend="eager")
    assert resolve("model", handler).text == "model (notes.ipynb, cell 1, line 18)"


def test_a_line_of_a_module_that_was_shipped(load: Callable[[str], Any], tmp_path: Path) -> None:
    handler = load(SOURCE)
    library = tmp_path / "bundle" / "lib"
    library.mkdir()
    (library / "shipped.py").write_text("def steps(x):\n    y = x\n    return y\n")
    shipped = importlib.import_module("shipped")
    try:
        for at in ("shipped.py:3", "lib/shipped.py:3", "shipped.steps"):
            assert resolve(at, handler).text.startswith(
                ("steps (shipped.py, line 3)", "shipped.steps (shipped.py, line 2)")
            )
    finally:
        del sys.modules[shipped.__name__]


def test_a_line_of_a_library_that_is_installed(load: Callable[[], Any]) -> None:
    import torch

    line = lines_of(torch.nn.Linear.forward.__code__)[0]
    handler = load()
    target = resolve(f"torch/nn/modules/linear.py:{line}", handler)
    assert target.wants(torch.nn.Linear.forward.__code__)
    with pytest.raises(DebugError, match="write more of it"):
        resolve("functional.py:3", handler)


def test_a_condition_sees_locals_and_globals_also_inside_a_comprehension() -> None:
    rows = [1, 2]
    assert rows
    assert Condition("any(row > len(rows) - 1 for row in rows)").holds(sys._getframe())
    assert not Condition("len(rows) > 2").holds(sys._getframe())


def test_a_condition_that_raises_says_so_in_one_line() -> None:
    with pytest.raises(ConditionRaised) as caught:
        Condition("nothing[0] > 2").holds(sys._getframe())
    assert str(caught.value) == "the condition `nothing[0] > 2` raised NameError: name 'nothing' is not defined"


@pytest.mark.parametrize("text", ["x >", "x = 2", "", "import os"])
def test_a_condition_that_is_no_expression(text: str) -> None:
    with pytest.raises(DebugError, match="is no expression"):
        Condition(text)


def test_what_nbserve_puts_into_the_cells_is_no_place(load: Callable[[], Any]) -> None:
    handler = load()
    sys.modules["app"].artifact = lambda name: name  # type: ignore[attr-defined]
    sys.modules["app"].artifact.__module__ = "nbserve.bundle.load"
    with pytest.raises(DebugError) as caught:
        resolve("nothing", handler)
    assert "artifact" not in str(caught.value)
    assert "scale" in str(caught.value)

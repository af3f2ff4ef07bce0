"""What cannot be captured is one error that names the variable, the line that uses it, and the way out."""

from __future__ import annotations

import ast
import io
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbserve.errors import BundleError, CaptureError

START = "import torch, nbserve"
SERVED = (
    "%%serve test\n"
    "class Served(nbserve.Handler):\n"
    "    def handle(self, requests, context):\n"
    "        return [{} for r in requests]"
)

Clean = Callable[[Path, list[Any]], dict[str, Any]]


def handler(expression: str) -> str:
    return "# " + SERVED.format(expression)


REFUSED = {
    "open file": ("f = open('/dev/null')", "f.read()", "an open file", "initialize"),
    "lock": ("import threading\nlock = threading.Lock()", "lock.locked()", "a lock", "initialize"),
    "lock inside": (
        "class Box: pass\nbox = Box()\nimport threading\nbox.lock = threading.RLock()",
        "box",
        "holds a lock",
        "initialize",
    ),
    "generator": ("gen = (x for x in range(3))", "next(gen)", "a generator", "Make a list"),
    "socket": ("import socket\ns = socket.socket()", "s.fileno()", "socket", "initialize"),
    "thread": ("import threading\nt = threading.Thread()", "t.name", "a lock", "initialize"),
    "lambda without source": ("f = eval('lambda x: x')", "f(r)", "source", "Run the cell"),
    "function without source": ("exec('def g(x): return x')", "g(r)", "source", "Run the cell"),
    "class made in a function": (
        "def make():\n    class Local: pass\n    return Local()\nthing = make()",
        "thing",
        "Local",
        "top level",
    ),
    "undefined name": ("x = 1", "nowhere + x", "not defined", "Run the cell"),
    "two that hold each other": (
        "class N: pass\na, b = N(), N()\na.b, b.a = b, a",
        "[a, b]",
        "refer to each other",
        "one object",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_error_names_variable_line_and_way_out(case: str, notebook: Any) -> None:
    cell, expression, why, way_out = REFUSED[case]
    notebook.run(START, cell, handler(expression))
    with pytest.raises(CaptureError) as caught:
        notebook.serve()
    text = str(caught.value)
    name = {"class made in a function": "Local", "undefined name": "nowhere"}.get(case, cell_name(expression))
    assert f"`{name}`" in text
    assert why in text
    assert way_out in text
    if case != "two that hold each other":
        assert f"test.ipynb, cell 3, line 4:  return [{expression} for r in requests]" in text
    for value in notebook.namespace.values():
        if isinstance(value, io.IOBase | socket.socket):
            value.close()


def cell_name(expression: str) -> str:
    return next(node.id for node in ast.walk(ast.parse(expression)) if isinstance(node, ast.Name) and node.id != "next")


@pytest.mark.parametrize(
    ("cell", "variable", "one", "other"),
    [
        ("T = 0.5\nclass Served(nbserve.Handler):\n    limit = T", "T", "0.5", "0.9"),
        ("T = 0.5\nclass Served(nbserve.Handler):\n    limit = [T * 2, 1]", "T", "[1.0, 1]", "[1.8, 1]"),
        ("T = 0.5\nclass Served(nbserve.Handler):\n    def f(self, x=T): return x", "T", "0.5", "0.9"),
        ("T = 0.5\nclass Served(nbserve.Handler):\n    def f(self, *, x=T): return x", "T", "0.5", "0.9"),
        (
            "T = 0.5\ndef g(x=T): return x\nclass Served(nbserve.Handler):\n    def f(self): return g()",
            "T",
            "0.5",
            "0.9",
        ),
        ("T = torch.zeros(2)\nclass Served(nbserve.Handler):\n    T = T", "T", "tensor([0., 0.])", "0.9"),
    ],
)
def test_a_global_assigned_again_is_seen_in_the_kernel(
    cell: str, variable: str, one: str, other: str, notebook: Any
) -> None:
    notebook.run(START, cell, "T = 0.9")
    with pytest.raises(CaptureError, match=rf"cannot capture `{variable}`: .*{re.escape(one)}.*{re.escape(other)}"):
        notebook.serve()


@pytest.mark.parametrize(
    ("cell", "place", "one", "other"),
    [
        ("T = 0.5\nclass Served(nbserve.Handler):\n    limit = float(T)", "Served.limit", "0.5", "0.9"),
        (
            "T = 0.5\nclass Served(nbserve.Handler):\n    def f(self, x=round(T, 3)): return x",
            r"Served.f(x=)",
            "0.5",
            "0.9",
        ),
        (
            "T = 0.5\ndef at(t):\n    def put(f):\n        def g(): return f() + t\n        return g\n    return put\n"
            "@at(T)\ndef h(): return 1\nclass Served(nbserve.Handler):\n    def f(self): return h()",
            "h<t>",
            "0.5",
            "0.9",
        ),
    ],
)
def test_a_global_assigned_again_is_seen_in_the_worker(
    cell: str, place: str, one: str, other: str, notebook: Any, clean: Clean
) -> None:
    notebook.run(START, cell, "T = 0.9")
    error = clean(notebook.serve().path, [])["error"]
    assert error.startswith(f"BundleError: {place} is {one} in the notebook and {other} in the bundle")
    assert place.startswith("h") or "T was assigned again" in error


def test_weights_made_in_the_class_body_are_not_silently_others(notebook: Any, clean: Clean) -> None:
    notebook.run("import torch, nbserve\nclass Served(nbserve.Handler):\n    model = torch.nn.Linear(2, 2)")
    error = clean(notebook.serve().path, [])["error"]
    assert "Served.model is Linear(" in error
    assert "in the notebook and another one in the bundle" in error
    assert "belongs in a variable of its own" in error


def test_a_function_made_from_the_object_that_holds_it_is_refused(notebook: Any) -> None:
    notebook.run(
        START,
        "class Net(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.act = lambda x: (self, x)\nnet = Net()",
        handler("net(r)"),
    )
    with pytest.raises(CaptureError, match="refer to each other"):
        notebook.serve()


def test_the_same_class_is_served_once_its_cell_ran_again(notebook: Any, clean: Clean) -> None:
    cell = "class Served(nbserve.Handler):\n    limit = T\n    def handle(self, requests, context): return [self.limit]"
    notebook.run(START, "T = 0.5", cell, "T = 0.9", cell)
    assert clean(notebook.serve().path, [0])["answer"] == [0.9]


def test_a_name_only_some_branch_needs_may_be_missing(notebook: Any, clean: Clean) -> None:
    notebook.run(
        START,
        "def f():\n    try:\n        return missing\n    except NameError:\n        return 'none'",
        handler("f()"),
    )
    assert clean(notebook.serve().path, [0])["answer"] == ["none"]


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", "x" * 65])
def test_a_name_that_cannot_be_a_url_is_refused(name: str, notebook: Any) -> None:
    notebook.run(START, handler("r"))
    with pytest.raises(CaptureError, match="cannot name an endpoint"):
        notebook.serve(name=name)


def test_what_is_no_handler_is_refused(notebook: Any) -> None:
    notebook.run(START, "class Served: pass")
    with pytest.raises(CaptureError, match="it is no handler"):
        notebook.serve()


def test_bundle_errors_are_for_clients() -> None:
    assert BundleError("x").status == 400

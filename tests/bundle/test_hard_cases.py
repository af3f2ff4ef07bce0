"""The hard cases of capture: the class of the bundle, in a clean process, answers as the kernel's does."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.process

START = "import torch, nbserve\nfrom torch import nn"
ROWS = [[0.0, 1.0, 2.0], [3.0, -1.0, 0.5]]


def cases(text: str) -> dict[str, list[str]]:
    """{name: cells} of hard_cases.txt."""
    parts = [part.partition("\n") for part in re.split(r"^=== ", text, flags=re.MULTILINE)[1:]]
    return {name.strip(): cells.rstrip("\n").split("\n---\n") for name, _, cells in parts}


CASES = cases(Path(__file__).with_name("hard_cases.txt").read_text())


@pytest.mark.parametrize("case", CASES)
def test_the_bundle_answers_as_the_kernel(
    case: str, new_notebook: Callable[[], Any], clean: Callable[[Path, list[Any]], dict[str, Any]]
) -> None:
    notebook = new_notebook()
    notebook.namespace.update(OPS=None) if "registry" in case else None
    notebook.run(START, *(_without_magics(cell) for cell in CASES[case]))
    notebook.namespace["_ih"][2:] = CASES[case]
    bundle = notebook.serve()
    found = clean(bundle.path, ROWS)
    assert "answer" in found, found.get("traceback", "") + (bundle.path / "app.py").read_text()
    assert repr(found["answer"]) == repr(notebook.answer(ROWS)), (bundle.path / "app.py").read_text()


def _without_magics(cell: str) -> str:
    """What IPython would run: here the magics just do nothing."""
    from nbserve.capture.cells import runnable

    return runnable(cell)

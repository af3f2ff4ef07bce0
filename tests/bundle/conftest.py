"""A notebook without Jupyter: cells that run in one namespace as IPython runs them, and a clean process to compare."""

from __future__ import annotations
import __future__

import json
import linecache
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nbserve.bundle.bundle import Bundle
from nbserve.capture.capture import capture
from nbserve.capture.store import Store

ANSWER = """
import json, os, sys, traceback, warnings
warnings.simplefilter("error")
import torch
from nbserve.handler import Context, Handler

def answer(handler, requests):
    context = Context("", "cpu", 0, "test", "1", None)
    handler.context = context
    handler.initialize(context)
    rows = handler.handle(requests, context)
    return [row.tolist() if hasattr(row, "tolist") else row for row in rows]
"""
exec(ANSWER, ANSWER_SPACE := {"__name__": "answer"})

CLEAN = (
    ANSWER
    + """
from nbserve.bundle.load import load_handler

def run(path, requests):
    try:
        return {"answer": answer(load_handler(path)(), requests)}
    except BaseException as error:
        return {"error": type(error).__name__ + ": " + str(error), "traceback": traceback.format_exc()}

for line in sys.stdin:
    path, requests = json.loads(line)
    reader, writer = os.pipe()
    if not os.fork():
        with os.fdopen(writer, "w") as file:
            file.write(json.dumps(run(path, requests)))
            file.flush()
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        print(file.read(), flush=True)
    os.wait()
"""
)


class Notebook:
    """Cells run one after the other; `serve` captures what the last one defines."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.namespace: dict[str, Any] = {"__name__": "__main__", "_ih": [""], "In": None}
        self.namespace["In"] = self.namespace["_ih"]

    def run(self, *cells: str) -> Notebook:
        for text in cells:
            self.namespace["_ih"].append(text)
            number = len(self.namespace["_ih"]) - 1
            filename = f"/tmp/ipykernel_1/{id(self)}_{number}.py"
            linecache.cache[filename] = (len(text), None, text.splitlines(True), filename)
            flags = __future__.annotations.compiler_flag if "annotations" in self.namespace else 0
            exec(compile(text, filename, "exec", flags=flags, dont_inherit=True), self.namespace)
        return self

    def serve(self, handler: str = "Served", **options: Any) -> Bundle:
        number = len(self.namespace["_ih"]) - 1
        cell = (self.namespace["_ih"][-1], f"test.ipynb, cell {number}")
        options = {"name": "test", "cell": cell, "store": self.store, **options}
        return capture(self.namespace[handler], namespace=self.namespace, **options)

    def answer(self, requests: list[Any], name: str = "Served") -> Any:
        """What the kernel's own handler answers."""
        return json.loads(json.dumps(ANSWER_SPACE["answer"](self.namespace[name](), requests)))


@pytest.fixture
def notebook(tmp_path: Path) -> Notebook:
    return Notebook(Store(tmp_path / "store"))


@pytest.fixture(scope="session")
def new_notebook(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Notebook]:
    return lambda: Notebook(Store(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="session")
def clean() -> Iterator[Callable[[Path, list[Any]], dict[str, Any]]]:
    """Answers of a bundle in a process that has seen no notebook: one interpreter, a fork per bundle."""
    process = subprocess.Popen([sys.executable, "-c", CLEAN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None

    def answers(path: Path, requests: list[Any]) -> dict[str, Any]:
        print(json.dumps([str(path), requests]), file=process.stdin, flush=True)
        found: dict[str, Any] = json.loads(process.stdout.readline())
        return found

    yield answers
    process.stdin.close()
    process.wait(10)
    process.stdout.close()

"""What the threads of a worker do, told without nbserve's own frames."""

from __future__ import annotations

import bdb
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import nbserve
from nbserve.handler import Handler
from nbserve.worker.debug import stacks
from nbserve.worker.debug.stacks import all_threads, is_ours, is_user_code, place_of, shown_file
from nbserve.worker.stages import Watch, pipeline_of

OWN = str(Path(nbserve.__file__).parent)


class Asking(Handler):
    """Asks for the stacks in the middle of a batch."""

    def preprocess(self, requests: list[Any]) -> Any:
        self.text = all_threads()
        self.place = place_of(sys._getframe())
        return requests

    def inference(self, batch: Any) -> Any:
        sorted(batch, key=self._key)
        return batch

    def _key(self, row: Any) -> int:
        self.place_inside = place_of(sys._getframe())
        return 0


FIRST_LINE = Asking.preprocess.__code__.co_firstlineno + 1


def run_batch(handler: Handler) -> None:
    pipeline_of(handler)([1], None, Watch(0))  # type: ignore[arg-type]


@contextmanager
def thread_in(function: Callable[[threading.Event], None], name: str) -> Iterator[None]:
    done = threading.Event()
    thread = threading.Thread(target=function, args=[done], name=name)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def wait_for(done: threading.Event) -> None:
    done.wait(30)


def test_the_main_thread_comes_first_with_its_source_lines() -> None:
    handler = Asking()
    with thread_in(wait_for, "helper"):
        run_batch(handler)
    first, _, second = handler.text.partition("\nthread helper:\n")
    assert first.startswith("main thread, which runs the handler:\n")
    assert f'File "{__file__}", line {FIRST_LINE}, in preprocess\n    self.text = all_threads()' in first
    assert "stages.py" not in first
    assert first.index("run_batch") < first.index("in preprocess")
    assert "in wait_for\n    done.wait(30)" in second
    assert "_bootstrap" not in second


def test_the_agents_own_threads_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "_AGENT", __file__)
    with thread_in(wait_for, "agent"):
        assert "\nthread agent:" not in all_threads()


@pytest.mark.alone
def test_a_main_thread_without_frames_of_its_own_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "is_ours", lambda filename: True)
    assert all_threads() == "main thread, which runs the handler:\n  waits for requests\n"


def test_a_place_is_the_innermost_that_the_user_wrote() -> None:
    handler = Asking()
    run_batch(handler)
    assert handler.place == (__file__, FIRST_LINE + 1, "preprocess")
    assert handler.place_inside == (__file__, Asking._key.__code__.co_firstlineno + 1, "_key")


def test_a_place_in_a_library_is_that_of_its_caller() -> None:
    import json

    seen = []

    def trace(frame: Any, event: str, _: Any) -> None:
        if frame.f_code.co_name == "decode":
            seen.append(place_of(frame))

    sys.settrace(trace)
    try:
        json.loads("1")
    finally:
        sys.settrace(None)
    assert seen[0][::2] == (__file__, "test_a_place_in_a_library_is_that_of_its_caller")


def test_a_default_method_is_a_place_of_its_own() -> None:
    seen = []

    def trace(frame: Any, event: str, _: Any) -> None:
        if not is_ours(frame.f_code.co_filename) and not seen:
            code = frame.f_code
            alone = type("Frame", (), {"f_code": code, "f_lineno": frame.f_lineno, "f_back": None})()
            seen.append(place_of(alone))

    handler = Handler()
    handler.model = lambda batch: batch
    sys.settrace(trace)
    try:
        handler.inference(1)
    finally:
        sys.settrace(None)
    assert (shown_file(seen[0][0]), seen[0][2]) == ("nbserve/handler.py", "inference")


@pytest.mark.parametrize(
    ("file", "ours", "users"),
    [
        (f"{OWN}/worker/runner.py", True, False),
        (f"{OWN}/handler.py", False, False),
        (bdb.__file__, True, False),
        (time.__name__, False, True),
        ("<frozen importlib._bootstrap>", True, False),
        ("<string>", False, False),
        ("quickstart.ipynb, cell 3", False, True),
        ("/cache/bundle/lib/helpers.py", False, True),
        (threading.__file__, False, False),
        ("/usr/lib/python3/site-packages/torch/nn/functional.py", False, False),
    ],
)
def test_whose_file_it_is(file: str, ours: bool, users: bool) -> None:
    assert (is_ours(file), is_user_code(file)) == (ours, users)


@pytest.mark.parametrize(
    ("file", "shown"),
    [
        ("quickstart.ipynb, cell 3", "quickstart.ipynb, cell 3"),
        ("/cache/bundle/lib/helpers.py", "helpers.py"),
        ("/usr/lib/python3/site-packages/torch/nn/functional.py", "torch/nn/functional.py"),
        (f"{OWN}/handler.py", "nbserve/handler.py"),
        (threading.__file__, "threading.py"),
        ("/elsewhere/app.py", "app.py"),
    ],
)
def test_how_a_file_is_shown(file: str, shown: str) -> None:
    assert shown_file(file) == shown

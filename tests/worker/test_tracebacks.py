"""Tracebacks for the author: the whole story, without nbserve's own frames."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from nbserve.handler import Handler
from nbserve.worker.runner import HANDLER_ERRORS
from nbserve.worker.stages import Watch, pipeline_of
from nbserve.worker.tracebacks import MAX_CHARACTERS, summary_of, traceback_of


class Failing(Handler):
    def preprocess(self, requests: list[Any]) -> Any:
        try:
            return requests[0]["image"]
        except KeyError as error:
            raise ValueError("no image\nin this request") from error


def raised_by(handler: Any, body: Any) -> BaseException:
    try:
        pipeline_of(handler)([body], None, Watch(0))  # type: ignore[arg-type]
    except HANDLER_ERRORS as error:
        return error
    raise AssertionError("nothing was raised")


def test_causes_are_kept_and_our_frames_are_not() -> None:
    text = traceback_of(raised_by(Failing(), {}))
    assert 'return requests[0]["image"]' in text
    assert "KeyError: 'image'" in text
    assert "The above exception was the direct cause of the following exception" in text
    assert 'raise ValueError("no image\\nin this request") from error' in text
    assert "stages.py" not in text


def test_an_error_of_the_default_methods_has_a_message_and_no_frames() -> None:
    handler = Handler()
    handler.context = type("Context", (), {"device": "cpu"})()
    text = traceback_of(raised_by(handler, [1]))
    assert "Handler has no self.model" in text
    assert "handler.py" not in text


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with Python 3.11")
def test_the_errors_of_a_group_are_cut_too() -> None:
    error = raised_by(Failing(), {})
    group = eval("ExceptionGroup('two', [error])", {"error": error})
    text = traceback_of(group)
    assert "KeyError: 'image'" in text
    assert "stages.py" not in text


def test_a_cycle_of_contexts_ends() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first
    assert "first" in traceback_of(first)


def test_a_very_long_traceback_keeps_its_end() -> None:
    text = traceback_of(ValueError("x" * 2 * MAX_CHARACTERS + "the end"))
    assert len(text) <= MAX_CHARACTERS
    assert text.endswith("the end\n")


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (ValueError("one\ntwo"), "ValueError: one"),
        (KeyError("a"), "KeyError: 'a'"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (SystemExit(3), "SystemExit: 3"),
    ],
)
def test_a_summary_is_one_line(error: BaseException, wanted: str) -> None:
    assert summary_of(error) == wanted


def test_an_error_that_cannot_be_shown_is_still_an_error() -> None:
    class Bad(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    assert summary_of(Bad()).startswith("Bad")
    assert "Bad" in traceback_of(Bad())

"""What log lines look like, to people and to programs."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from nbserve.errors import ConfigError, StartError
from nbserve.server.logbook import JsonFormatter, JsonStream, LineFormatter, LogBook, json_error


def record(text: str, level: int = logging.INFO, error: BaseException | None = None, **extra: Any) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error is not None else None
    made = logging.LogRecord("nbserve.server", level, __file__, 1, text, None, info)
    made.__dict__.update(extra)
    made.created = 1_700_000_000.25
    return made


def raised() -> Exception:
    try:
        raise KeyError("weights")
    except KeyError as error:
        return error


def test_a_line_of_json_has_all_keys() -> None:
    line = JsonFormatter().format(record("hello", endpoint="digits", worker=0))
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "INFO",
        "endpoint": "digits",
        "worker": 0,
        "message": "hello",
    }
    assert json.loads(JsonFormatter().format(record("hello")))["worker"] is None


def test_whatever_is_said_stays_one_line_of_ascii() -> None:
    text = 'two\nlines, "quotes", cr\u00e8me, \u2028, \udcff'
    line = JsonFormatter().format(record(text))
    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert json.loads(line)["message"] == text


@pytest.mark.parametrize("formatter", [JsonFormatter(), LineFormatter()])
def test_a_traceback_is_part_of_the_line(formatter: logging.Formatter) -> None:
    line = formatter.format(record("it failed", logging.ERROR, raised()))
    message = json.loads(line)["message"] if isinstance(formatter, JsonFormatter) else line
    assert "it failed\nTraceback" in message
    assert message.endswith("KeyError: 'weights'")


def test_a_traceback_that_a_worker_prints_is_one_message(capfd: pytest.CaptureFixture[str]) -> None:
    stream = JsonStream()
    lines = ["Traceback (most recent call last):", '  File "a.py", line 1', "    f()", "ValueError: no", "after"]
    for number, line in enumerate(lines):
        stream.emit(record(line, endpoint="digits", worker=0))
        stream.emit(record(f"beside {number}", endpoint="digits", worker=1))
    said = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [line["message"] for line in said if line["worker"] == 0] == ["\n".join(lines[:4]), "after"]
    assert [line["message"] for line in said if line["worker"] == 1] == [f"beside {number}" for number in range(5)]


def test_the_ring_keeps_tracebacks_too() -> None:
    logbook = LogBook()
    logbook.emit(record("it failed", logging.ERROR, raised()))
    assert "KeyError: 'weights'" in logbook.last(1)[0]["text"]


def test_why_a_server_ended_is_one_object() -> None:
    start = json.loads(json_error(StartError("digits did not start", "cell 1, line 3\nKeyError")))
    assert (start["level"], start["message"]) == ("ERROR", "digits did not start\ncell 1, line 3\nKeyError")
    assert json.loads(json_error(ConfigError("no such port")))["message"] == "no such port"
    assert "test_logbook.py" in json.loads(json_error(raised()))["message"]
    assert sys.exc_info() == (None, None, None)

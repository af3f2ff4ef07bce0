"""The server's log: its own records and the workers' output, kept in a ring and written to stderr. Server process."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import logging
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO, TypedDict

from nbserve.config import LogFormat
from nbserve.errors import NbserveError, StartError

if TYPE_CHECKING:
    Stream = logging.StreamHandler[TextIO]
else:
    Stream = logging.StreamHandler

logger = logging.getLogger("nbserve.server")

RING_LINES = 5_000
MAX_LINE_BYTES = 64 * 1024
TRACEBACK_LINE = "Traceback (most recent call last):"


class LogLine(TypedDict):
    number: int
    time_s: float
    level: str
    endpoint: str | None
    worker: int | None
    text: str


class LogBook(logging.Handler):
    """Keeps the last lines of everything logged, for `GET logs`."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[LogLine] = deque(maxlen=RING_LINES)
        self._numbers = itertools.count(1)

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(
            LogLine(
                number=next(self._numbers),
                time_s=record.created,
                level=record.levelname,
                endpoint=getattr(record, "endpoint", None),
                worker=getattr(record, "worker", None),
                text=text_of(record),
            )
        )

    def last(self, count: int, endpoint: str | None = None, after: int = 0) -> list[LogLine]:
        """The newest `count` lines with a number above `after`, oldest first; of one endpoint when it is named."""
        wanted = (line for line in self._lines if endpoint is None or line["endpoint"] == endpoint)
        return [line for line in wanted if line["number"] > after][-count:]


class LineFormatter(logging.Formatter):
    """`12:00:01 INFO digits[0] text`: one line for people; endpoint and worker when there are any."""

    def format(self, record: logging.LogRecord) -> str:
        who = ""
        if (endpoint := getattr(record, "endpoint", None)) is not None:
            worker = getattr(record, "worker", None)
            who = f"{endpoint} " if worker is None else f"{endpoint}[{worker}] "
        return f"{self.formatTime(record, '%H:%M:%S')} {record.levelname} {who}{text_of(record)}"


class JsonFormatter(logging.Formatter):
    """One object a line for programs; a traceback stays within its message."""

    def format(self, record: logging.LogRecord) -> str:
        endpoint, worker = getattr(record, "endpoint", None), getattr(record, "worker", None)
        return json_line(record.created, record.levelname, text_of(record), endpoint, worker)


def json_line(time_s: float, level: str, message: str, endpoint: str | None = None, worker: int | None = None) -> str:
    clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_s))
    told = {"endpoint": endpoint, "worker": worker, "message": message}
    # ASCII alone, whatever the encoding of stderr is.
    return json.dumps({"time": f"{clock}.{int(time_s * 1000) % 1000:03d}Z", "level": level, **told})


def json_error(error: Exception) -> str:
    """The line that says why a server ended; errors of our tree need no traceback but their own."""
    message = f"{error}\n{error.traceback_text}".rstrip() if isinstance(error, StartError) else str(error)
    if not isinstance(error, NbserveError):
        message = "".join(traceback.format_exception(error)).rstrip()
    return json_line(time.time(), "ERROR", message)


class Tracebacks:
    """Makes one text of the lines of a traceback, which a worker prints one by one."""

    def __init__(self) -> None:
        self._begun: dict[object, list[str]] = {}

    def join(self, who: object, line: str) -> str | None:
        """The text that this line completes, which mostly is itself; None while a traceback goes on."""
        lines = self._begun.get(who)
        if lines is None:
            if line != TRACEBACK_LINE:
                return line
            self._begun[who] = [line]
            return None
        lines.append(line)
        # Its last line, with the error, is the first that is not indented.
        if line.startswith(" "):
            return None
        return "\n".join(self._begun.pop(who))


class JsonStream(Stream):
    """Writes lines of JSON to stderr."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self._tracebacks = Tracebacks()

    def emit(self, record: logging.LogRecord) -> None:
        if (worker := getattr(record, "worker", None)) is not None:
            text = self._tracebacks.join((record.__dict__.get("endpoint"), worker), text_of(record))
            if text is None:
                return
            record = copy.copy(record)
            record.msg, record.args, record.exc_info = text, (), None
        super().emit(record)


def text_of(record: logging.LogRecord) -> str:
    """What a record says, with the traceback that it carries."""
    if not record.exc_info:
        return record.getMessage()
    return f"{record.getMessage()}\n{logging.Formatter().formatException(record.exc_info)}"


def start_logging(logbook: LogBook, log_format: LogFormat = "text") -> None:
    """Send the server's log to the ring and to stderr; with `json` what libraries log or warn of too."""
    stream: logging.Handler = JsonStream() if log_format == "json" else logging.StreamHandler()
    if log_format == "text":
        stream.setFormatter(LineFormatter())
    logger.handlers[:] = [logbook, stream]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if log_format == "json":
        logging.getLogger().handlers[:] = [stream]
        logging.captureWarnings(True)


class OutputPipe(asyncio.Protocol):
    """A worker's stdout and stderr, cut into lines; each goes to `on_line`."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._partial = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._on_line(line.decode(errors="replace"))
        if len(self._partial) > MAX_LINE_BYTES:
            self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._flush()

    def _flush(self) -> None:
        if self._partial:
            self._on_line(self._partial.decode(errors="replace"))
            self._partial = b""

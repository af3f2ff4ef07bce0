"""Tracebacks as the author of a handler wants them: without nbserve's own frames. Runs in the worker."""

from __future__ import annotations

from pathlib import Path
from traceback import TracebackException

import nbserve

_OWN_FOLDER = str(Path(nbserve.__file__).parent) + "/"
MAX_CHARACTERS = 64 * 1024


def summary_of(error: BaseException) -> str:
    """The error in one line."""
    text = _text_of(error).strip()
    first_line = text.splitlines()[0] if text else ""
    return f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__


def traceback_of(error: BaseException) -> str:
    """The whole traceback with its causes, without the frames of nbserve and of the import system."""
    report = TracebackException.from_exception(error)
    _cut(report, set())
    return "".join(report.format())[-MAX_CHARACTERS:]


def is_ours(filename: str) -> bool:
    """Whether it is a file of nbserve or of the import system."""
    return filename.startswith((_OWN_FOLDER, "<frozen "))


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        # The handler's own exception class is broken; what it was about must not get lost over that.
        return "(its text cannot be shown)"


def _cut(report: TracebackException | None, seen: set[int]) -> None:
    if report is None or id(report) in seen:
        return
    seen.add(id(report))
    report.stack[:] = [frame for frame in report.stack if not is_ours(frame.filename)]
    for other in (report.__cause__, report.__context__, *(getattr(report, "exceptions", None) or ())):
        _cut(other, seen)

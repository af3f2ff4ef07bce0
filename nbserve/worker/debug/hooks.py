"""breakpoint() and pdb.set_trace() in a worker. Installed before any user code is imported."""

from __future__ import annotations

import os
import pdb
import sys
import types
from typing import TYPE_CHECKING, Any

from nbserve.worker.debug.stacks import shown_file

if TYPE_CHECKING:
    from nbserve.worker.debug.debugger import Debugger

NO_AGENT = "this server runs without --debug"


class BreakpointHook:
    """Holds the worker at the line that calls it, or logs, once for each place, why it does not."""

    def __init__(self, debugger: Debugger | None) -> None:
        self._debugger = debugger
        self._logged: set[tuple[str, int, str]] = set()

    def install(self) -> None:
        sys.breakpointhook = self
        pdb.set_trace = self

    def __call__(self, *args: Any, header: str | None = None, **kwargs: Any) -> None:
        frame = sys._getframe(1)
        if os.environ.get("PYTHONBREAKPOINT") == "0":
            return
        reason = NO_AGENT if self._debugger is None else self._debugger.why_no_breakpoint()
        if reason is not None or self._debugger is None:
            self._log(frame, reason or NO_AGENT)
        else:
            self._debugger.breakpoint(frame, header or "")

    def _log(self, frame: types.FrameType, reason: str) -> None:
        place = frame.f_code.co_filename, frame.f_lineno, reason
        if place not in self._logged:
            self._logged.add(place)
            log(f"breakpoint() at {shown_file(place[0])}:{place[1]} passed: {reason}")


def log(text: str) -> None:
    """A line in the endpoint's log."""
    sys.stderr.write(text + "\n")

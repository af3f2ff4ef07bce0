"""Which lines of Python allocate memory, by tracemalloc. Runs in the worker, in a thread of its own."""

from __future__ import annotations

import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

from nbserve.worker.debug.stacks import shown_file

_OWN_FOLDER = str(Path(__file__).parent) + "/"
_IGNORED = (_OWN_FOLDER, tracemalloc.__file__, threading.__file__)
MAX_PLACES = 200
PAUSE_S = 0.02
# A look at all that is allocated holds the GIL: this many times as long it then leaves the handler alone.
REST = 9


class Allocations:
    """Looks at what is allocated again and again: a peak is the most that one look found."""

    def __init__(self) -> None:
        self.looks = 0
        self._peaks: dict[str, int] = {}
        self._was_tracing = tracemalloc.is_tracing()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nbserve-allocations", daemon=True)

    def start(self) -> None:
        if not self._was_tracing:
            tracemalloc.start()
        self._thread.start()

    def stop(self) -> None:
        """Stop; tracing goes on where the handler's code had turned it on."""
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join()

    def result(self) -> dict[str, Any]:
        """The places with the highest peaks; ends the tracing."""
        try:
            now = self._look()
            traced_bytes, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            self.end_tracing()
        places = sorted(self._peaks, key=lambda place: -self._peaks[place])[:MAX_PLACES]
        rows = [_row(place, self._peaks[place], now.get(place)) for place in places]
        return {"python": rows, "python_bytes": traced_bytes, "python_peak_bytes": peak_bytes}

    def end_tracing(self) -> None:
        if not self._was_tracing:
            tracemalloc.stop()

    def _run(self) -> None:
        pause_s = PAUSE_S
        while not self._is_over.wait(pause_s):
            began_s = time.perf_counter()
            self._look()
            pause_s = max(PAUSE_S, REST * (time.perf_counter() - began_s))

    def _look(self) -> dict[str, tracemalloc.Statistic]:
        found = {}
        for statistic in tracemalloc.take_snapshot().statistics("lineno"):
            frame = statistic.traceback[0]
            if not frame.filename.startswith(_IGNORED):
                place = f"{shown_file(frame.filename)}:{frame.lineno}"
                found[place] = statistic
                self._peaks[place] = max(self._peaks.get(place, 0), statistic.size)
        self.looks += 1
        return found


def _row(place: str, peak_bytes: int, now: tracemalloc.Statistic | None) -> dict[str, Any]:
    return {
        "place": place,
        "bytes": now.size if now is not None else 0,
        "peak_bytes": peak_bytes,
        "count": now.count if now is not None else 0,
    }

"""When is a still picture worth drawing again? No clock and no I/O here: callers pass `now_s`. Runs in the kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbserve.notebook.live import Live

# A saved notebook changes at most so often.
REST_S = 10.0
# Traffic that goes on is drawn when it has begun, when its line can be seen, and when it fills the charts.
_STAGES_S = (0.0, 20.0, 120.0)


class News:
    """Compares what there is with what was drawn."""

    def __init__(self, drawn: Live, now_s: float) -> None:
        self._answers = _answers(drawn)
        self._busy_since_s: float | None = None
        self._drawn_s = now_s
        self._drawn = self._told(drawn, now_s)

    def is_due(self, live: Live, now_s: float) -> bool:
        """Look again; when it is due, the caller draws `live`."""
        if live.is_gone:
            return True
        self._follow_traffic(live, now_s)
        told = self._told(live, now_s)
        if told == self._drawn or now_s - self._drawn_s < REST_S:
            return False
        self._drawn, self._drawn_s = told, now_s
        return True

    def _follow_traffic(self, live: Live, now_s: float) -> None:
        answers = _answers(live)
        if answers == self._answers:
            self._busy_since_s = None
        elif self._busy_since_s is None:
            self._busy_since_s = now_s
        self._answers = answers

    def _told(self, live: Live, now_s: float) -> tuple[object, ...]:
        """What a picture tells, but for the numbers that always move."""
        endpoint = live.endpoint
        workers = [_worker(worker) for worker in endpoint["workers"]]
        is_loaded = bool(live.load and live.load["is_running"])
        # Idle, it is the count that tells whether something was answered since.
        traffic: object = self._answers
        if self._busy_since_s is not None:
            traffic = sum(now_s - self._busy_since_s >= stage_s for stage_s in _STAGES_S), "since it began"
        return endpoint["version"], endpoint["state"], endpoint["settings"], workers, is_loaded, traffic


def _answers(live: Live) -> int:
    return sum(live.endpoint["requests"].values())


def _worker(worker: Mapping[str, Any]) -> tuple[object, ...]:
    state = "READY" if worker["state"] == "BUSY" else worker["state"]
    return worker["index"], worker["pid"], state, worker.get("last_error")

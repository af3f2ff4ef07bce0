"""Where a worker is held, as a record and as JSON, and whether breakpoints hold at all. Pure; server process."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

Role = Literal["worker", "stand-in", "replay"]


class HeldObject(TypedDict):
    """A held worker in the status and in `/holds`. `goes_on_in_s` is None when it waits for its debugger alone."""

    worker: int
    pid: int | None
    reason: str
    file: str
    line: int
    function: str
    request_ids: list[str]
    since_s: float
    debugger: str | None
    goes_on_in_s: float | None
    socket: str | None


@dataclass(frozen=True)
class Hold:
    """One stop of a worker. `since_s` and `goes_on_at_s` are seconds since the epoch, `since_ns` is CLOCK_MONOTONIC."""

    reason: str
    file: str
    line: int
    function: str
    request_ids: tuple[str, ...]
    since_s: float
    since_ns: int
    goes_on_at_s: float | None

    @classmethod
    def of_event(cls, event: Mapping[str, Any], id_prefix: str, now_s: float, now_ns: int) -> Hold:
        """What a worker's event `held` says."""
        wait_s = event.get("wait_s")
        return cls(
            reason=str(event["reason"]),
            file=str(event["file"]),
            line=int(event["line"]),
            function=str(event["function"]),
            request_ids=tuple(f"{id_prefix}-{number:x}" for number in event["request_ids"]),
            since_s=now_s,
            since_ns=now_ns,
            goes_on_at_s=None if wait_s is None else now_s + wait_s,
        )

    def __str__(self) -> str:
        what = f"request {', '.join(self.request_ids)}" if self.request_ids else "initialize"
        return f"{self.file}, line {self.line} in {self.function} ({what})"

    def goes_on_in_s(self, now_s: float) -> float | None:
        """Seconds until it goes on by itself when no debugger attaches."""
        return None if self.goes_on_at_s is None else max(0.0, self.goes_on_at_s - now_s)


@dataclass(frozen=True)
class Debugger:
    """Who has a worker, and since when: seconds since the epoch."""

    who: str
    kind: str
    since_s: float

    def __str__(self) -> str:
        return f"{self.who} since {time.strftime('%H:%M:%S', time.localtime(self.since_s))}"

    @property
    def stops_time(self) -> bool:
        """Whether time-outs make no sense: what debugpy traces runs many times slower."""
        return self.kind == "debugpy"

    @classmethod
    def of_event(cls, event: Mapping[str, Any]) -> Debugger | None:
        """What a worker's event `debugger` says; None: nobody any more."""
        who = event.get("who")
        return None if who is None else cls(str(who), str(event.get("kind") or "pdb"), float(event["since_s"]))


def breakpoints_on(role: Role, is_live: bool, is_another_held: bool) -> bool:
    """Whether `breakpoint()` holds in a worker: one worker of a version that serves is held, the others serve."""
    if role == "replay":
        return True
    return role == "worker" and is_live and not is_another_held

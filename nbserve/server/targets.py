"""Which worker a debugger gets. Pure; server process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from nbserve.errors import Conflict, DebugError, NotFound, Unavailable
from nbserve.server.holds import Debugger, Hold, Role
from nbserve.server.standins import Mode
from nbserve.server.worker_state import WorkerState


class Candidate(Protocol):
    """What the choice depends on."""

    @property
    def index(self) -> int: ...
    @property
    def role(self) -> Role: ...
    @property
    def state(self) -> WorkerState: ...
    @property
    def hold(self) -> Hold | None: ...
    @property
    def debugger(self) -> Debugger | None: ...
    @property
    def failed_ns(self) -> int: ...
    @property
    def busy_since_ns(self) -> int: ...


C = TypeVar("C", bound=Candidate)


def pick(mode: Mode, workers: Sequence[C], name: str, index: int | None = None) -> C | None:
    """The worker for `mode`: the one asked for, else the fittest; None when `attach` has nothing to attach to yet.

    Raises NotFound, Conflict when somebody else debugs it, and DebugError when there is nothing to debug.
    """
    if index is not None:
        return _asked_for(mode, workers, name, index)
    if mode == "attach":
        return _held(workers)
    if mode == "interrupt":
        return _busy(workers, name)
    if mode == "post_mortem":
        return _failed(workers, name)
    return _serving(workers, name)


def _asked_for(mode: Mode, workers: Sequence[C], name: str, index: int) -> C:
    found = [worker for worker in workers if worker.index == index]
    if not found:
        known = ", ".join(str(worker.index) for worker in workers)
        raise NotFound(f"{name} has no worker {index}; there are: {known}")
    # A version that starts or drains may have a worker of that index too.
    held = [worker for worker in found if mode == "attach" and worker.hold is not None]
    worker = (held or found)[0]
    if worker.state is WorkerState.DEAD:
        raise Unavailable(f"worker {index} of {name} is not running now")
    return _free([worker])[0]


def _held(workers: Sequence[C]) -> C | None:
    held = [worker for worker in workers if worker.hold is not None]
    return min(_free(held), key=_held_since_ns) if held else None


def _held_since_ns(worker: Candidate) -> int:
    return worker.hold.since_ns if worker.hold is not None else 0


def _busy(workers: Sequence[C], name: str) -> C:
    busy = [worker for worker in workers if worker.busy_since_ns and worker.hold is None]
    if not busy:
        raise DebugError(f"no worker of {name} runs a request now{_held_hint(workers)}")
    return min(_free(busy), key=lambda worker: worker.busy_since_ns)


def _failed(workers: Sequence[C], name: str) -> C:
    failed = [worker for worker in workers if worker.failed_ns and worker.state is not WorkerState.DEAD]
    if not failed:
        raise DebugError(f"no request of {name} has failed in a worker that still runs")
    return _free([max(failed, key=lambda worker: worker.failed_ns)])[0]


def _serving(workers: Sequence[C], name: str) -> C:
    """An idle one before a busy one, and a configured one before a stand-in."""
    states = (WorkerState.READY, WorkerState.BUSY)
    serving = [worker for worker in workers if worker.state in states and worker.role != "replay"]
    if serving:
        return min(_free(serving), key=lambda worker: (worker.role != "worker", states.index(worker.state)))
    if hint := _held_hint(workers):
        raise DebugError(f"no other worker of {name} serves now{hint}")
    raise Unavailable(f"no worker of {name} serves now")


def _held_hint(workers: Sequence[Candidate]) -> str:
    held = [worker for worker in workers if worker.hold is not None]
    return f"; worker {held[0].index} is held at {held[0].hold}: attach to it" if held else ""


def _free(workers: Sequence[C]) -> list[C]:
    """Those without a debugger; raises Conflict when all have one."""
    free = [worker for worker in workers if worker.debugger is None]
    if not free and (debugger := workers[0].debugger) is not None:
        raise Conflict(f"worker {workers[0].index} is being debugged by {debugger}")
    return free

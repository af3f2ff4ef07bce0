"""One worker as the server holds it. Only the supervisor changes what it is. Server process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol

import psutil

from nbserve import wire
from nbserve.config import EndpointConfig
from nbserve.errors import StartError
from nbserve.server.channel import Channel, InFlight
from nbserve.server.failures import place_in_cell
from nbserve.server.holds import Debugger, HeldObject, Hold, Role
from nbserve.server.worker_state import Backoff, WorkerState

if TYPE_CHECKING:
    from nbserve.server.recording import Part
    from nbserve.server.supervisor import Supervisor

LossCause = Literal["died", "response time-out"]


class Owner(Protocol):
    """The version a worker belongs to: gets its answers, its news, and what it leaves unanswered."""

    name: str
    label: str
    id_prefix: str
    config: EndpointConfig

    def worker_spec(self, worker: Worker) -> dict[str, Any]: ...

    def on_ready(self, worker: Worker) -> None: ...

    def on_results(self, worker: Worker, batch: InFlight, results: wire.Results) -> None: ...

    def on_event(self, worker: Worker, event: dict[str, Any]) -> None: ...

    def on_held(self, worker: Worker, ahead: list[InFlight]) -> None: ...

    def on_resumed(self, worker: Worker) -> None: ...

    def on_debugger(self, worker: Worker) -> None: ...

    def on_written(self) -> None: ...

    def on_lost(self, worker: Worker, batches: list[InFlight], cause: LossCause) -> None: ...

    def on_ended(self, worker: Worker) -> None: ...

    def on_given_up(self) -> None: ...


class Worker:
    """One worker of a version; index, counters and back-off outlive the process when it is restarted.

    `launched_ns` is when its process was forked, `failed_ns` when a request last failed in it (0: none did).
    `failing` has what went wrong in the batch it is at, by request id; `spent` says why its process is to be replaced.
    `has_slot` says that its batch counts among those that run on its device, `recording` is what it is recorded for,
    `is_writing` that it writes what it recorded: it begins no batch meanwhile.
    """

    def __init__(self, index: int, owner: Owner, supervisor: Supervisor, role: Role = "worker") -> None:
        self.index = index
        self.role = role
        self.owner = owner
        self.state = WorkerState.DEAD
        self.device = "cpu"
        self.threads = 0
        self.restarts = 0
        self.batches = 0
        self.last_error: str | None = None
        self.last_error_place: str | None = None
        self.last_traceback: str | None = None
        self.rss_bytes = 0
        self.cpu_percent = 0.0
        self.has_served = False
        self.has_slot = False
        self.is_leaving = False
        self.is_renewing = False
        self.backoff = Backoff()
        self.process: psutil.Process | None = None
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_line: list[Callable[[str], None]] = []
        self._supervisor = supervisor
        self.begin()
        self.ended.set()

    def begin(self) -> None:
        """Forget the process before: a new one is about to be started."""
        self.pid: int | None = None
        self.launched_ns = 0
        self.ready_at_s: float | None = None
        self.failed_ns = 0
        self.failing: dict[int, str] = {}
        self.start_error: StartError | None = None
        self.is_hung = self.was_killed = self.is_given_up = False
        self.spent: str | None = None
        self.breakpoints = True
        self.debug_socket: str | None = None
        self.hold: Hold | None = None
        self.debugger: Debugger | None = None
        self.recording: Part | None = None
        self.is_writing = False
        self.channel = Channel(self)
        # Of its own: who waits for the end of the process before must not miss it.
        self.ended = asyncio.Event()
        if self.started.done():
            self.started = asyncio.get_running_loop().create_future()
        # A worker whose start nobody awaits must not end in "exception was never retrieved".
        self.started.add_done_callback(lambda done: done.exception())

    def went_wrong(self, error: str, traceback: str = "") -> None:
        """Its newest error, and where in a cell that was."""
        self.last_error, self.last_error_place = error, place_in_cell(traceback)
        self.last_traceback = traceback or self.last_traceback

    @property
    def who(self) -> dict[str, Any]:
        """Whom a log record is about."""
        return {"endpoint": self.owner.label, "worker": self.index}

    @property
    def in_flight(self) -> int:
        return len(self.channel.in_flight)

    @property
    def is_serving(self) -> bool:
        """Whether it takes batches, now or after the one it has."""
        return self.state in (WorkerState.READY, WorkerState.BUSY)

    @property
    def is_idle(self) -> bool:
        """Whether it would begin a batch at once."""
        return self.state is WorkerState.READY and not self.is_writing

    @property
    def is_time_still(self) -> bool:
        """Whether time-outs wait: a debugger may have the worker, or it writes what it recorded."""
        has_debugger = self.debugger is not None and self.debugger.stops_time
        return self.hold is not None or self.is_writing or has_debugger

    @property
    def busy_since_ns(self) -> int:
        """Since when it has been at its batch; 0 when it has none."""
        return self.channel.in_flight[0].started_ns if self.channel.in_flight else 0

    def held_object(self, now_s: float) -> HeldObject | None:
        """Where it is held, for the status and for debuggers; None when it is not."""
        if (hold := self.hold) is None:
            return None
        return HeldObject(
            worker=self.index,
            pid=self.pid,
            reason=hold.reason,
            file=hold.file,
            line=hold.line,
            function=hold.function,
            request_ids=list(hold.request_ids),
            since_s=hold.since_s,
            debugger=self.debugger.who if self.debugger else None,
            goes_on_in_s=None if self.debugger else hold.goes_on_in_s(now_s),
            socket=self.debug_socket,
        )

    def __str__(self) -> str:
        return f"worker {self.index} (pid {self.pid})"

    def on_results(self, batch: InFlight, results: wire.Results) -> None:
        self._supervisor.worker_answered(self)
        self.owner.on_results(self, batch, results)

    def on_event(self, event: dict[str, Any]) -> None:
        self._supervisor.worker_said(self, event)

    def on_channel_closed(self) -> None:
        self._supervisor.channel_closed(self)

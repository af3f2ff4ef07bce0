"""The workers of one version: those configured, a stand-in, one for a replay, and those that leave. Server process."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from nbserve.config import EndpointConfig
from nbserve.errors import Conflict, StartError
from nbserve.server.failures import Failure
from nbserve.server.holds import Role, breakpoints_on
from nbserve.server.logbook import logger
from nbserve.server.standins import ATTACH_WITHIN_S, LINGER_S, Mode, Standing, Wish, is_standin_wanted
from nbserve.server.supervisor import Supervisor
from nbserve.server.worker import Owner, Worker

OnProgress = Callable[[str], None]


class Crew:
    """Starts and dismisses the workers of its owner. `rotation` are those that get the endpoint's requests.

    `preferred` is the worker whose debugger waits for the next request. While `is_live`, breakpoints hold and a
    stand-in may start.
    """

    def __init__(self, owner: Owner, supervisor: Supervisor, on_change: Callable[[], None]) -> None:
        self.workers: list[Worker] = []
        self.standin: Worker | None = None
        self.replay: Worker | None = None
        self.replayed: Failure | None = None
        self.rotation: list[Worker] = []
        self.preferred: Worker | None = None
        self.is_live = False
        self._owner = owner
        self._supervisor = supervisor
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._leaving: dict[Worker, asyncio.Task[None]] = {}
        self._wishes: dict[Worker, Wish] = {}
        self._standin_leaves: asyncio.TimerHandle | None = None
        self._standin_failed = False

    @property
    def everyone(self) -> list[Worker]:
        """All that have a process or will have one, those that are held while they leave included."""
        extras = [worker for worker in (self.standin, self.replay) if worker is not None]
        return [*self.workers, *extras, *(worker for worker in self._leaving if worker.hold is not None)]

    async def start(self, count: int, on_progress: OnProgress) -> None:
        """Start the configured workers; StartError says why one of them did not get ready.

        Where they compile, the first does so alone: the others find its results in their cache.
        """
        ready = itertools.count(1)
        at_once = 1 if self._owner.config.compile else count
        for first, last in ((0, at_once), (at_once, count)):
            added = [self._new("worker", index) for index in range(first, last)]
            self._set_workers([*self.workers, *added])
            await self._start(added, lambda: on_progress(f"{next(ready)} of {count} workers ready"))

    async def configure(self, config: EndpointConfig) -> None:
        """Have as many workers as configured; one that is held while it leaves goes when it was resumed."""
        leaving = self.workers[config.workers :]
        kept = self.workers[: config.workers]
        added = [self._new("worker", index) for index in self._free_indexes(config.workers - len(kept))]
        self._set_workers([*kept, *added])
        going = [self._gone_or_held(worker, self._dismiss(worker)) for worker in leaving]
        try:
            await self._start(added, lambda: None)
        except StartError:
            self._set_workers(kept)
            await asyncio.gather(*(self._dismiss(worker) for worker in added))
            raise
        finally:
            await asyncio.gather(*going)
            self.review()

    async def stop(self) -> None:
        """End all workers after what they have in flight."""
        self.is_live = False
        self.review()
        stopping = [self._dismiss(worker) for worker in self.everyone if worker not in self._leaving]
        await asyncio.gather(*stopping, *self._leaving.values())

    def review(self) -> None:
        """Act on what changed: who holds at breakpoints, who is preferred, whether a stand-in or a replay is needed."""
        self._drop_wishes(time.monotonic_ns())
        self._switch_breakpoints()
        wishing = [worker for worker, wish in self._wishes.items() if wish.stops and wish.was_attached]
        self.preferred = next(iter(wishing), None)
        self._review_standin()
        self._on_change()

    def wish(self, worker: Worker, mode: Mode) -> None:
        """A debugger is about to ask for this worker; to be followed by `answered`."""
        self._wishes[worker] = Wish(mode)
        self.review()

    def answered(self, worker: Worker) -> None:
        """The debugger was told: from now on it has its time to attach."""
        if (wish := self._wishes.get(worker)) is not None:
            expires_ns = time.monotonic_ns() + int(ATTACH_WITHIN_S * 1e9)
            self._wishes[worker] = replace(wish, expires_ns=expires_ns)
            self._loop.call_later(ATTACH_WITHIN_S + 0.01, self.review)

    def debugger_changed(self, worker: Worker) -> None:
        """A debugger attached to the worker, or left it."""
        if worker.debugger is not None and (wish := self._wishes.get(worker)) is not None:
            self._wishes[worker] = replace(wish, was_attached=True)
        self.review()

    async def has_standin(self) -> bool:
        """Whether a stand-in serves, once one that is starting is ready or has failed."""
        if self.standin is None:
            return False
        try:
            await asyncio.shield(self.standin.started)
        except StartError:
            return False
        return True

    async def start_replay(self, failure: Failure) -> Worker:
        """A worker out of rotation that runs the request again; raises StartError, or Conflict when it is in use."""
        worker = self.replay
        if worker is not None and worker.debugger is not None:
            raise Conflict(f"worker {worker.index} replays a request for {worker.debugger.who}")
        if worker is None:
            [index] = self._free_indexes(1)
            worker = self.replay = self._new("replay", index)
            self._supervisor.start(worker)
        self.replayed = failure
        self.wish(worker, "replay")
        try:
            await asyncio.shield(worker.started)
        except StartError:
            self._wishes.pop(worker, None)
            self._dismiss(worker)
            raise
        return worker

    def may_hold(self, worker: Worker) -> bool:
        """Whether `breakpoint()` holds in a worker that starts now."""
        return breakpoints_on(worker.role, True, self._is_another_held(worker))

    def _new(self, role: Role, index: int) -> Worker:
        return Worker(index, self._owner, self._supervisor, role)

    def _free_indexes(self, count: int) -> list[int]:
        """The lowest that no worker has, those behind the configured ones first for extras."""
        taken = {worker.index for worker in (*self.everyone, *self._leaving)}
        return list(itertools.islice((index for index in itertools.count() if index not in taken), max(0, count)))

    def _set_workers(self, workers: list[Worker]) -> None:
        self.workers = workers
        self.rotation = [*workers, *([self.standin] if self.standin else [])]

    async def _start(self, workers: Sequence[Worker], on_ready: Callable[[], None]) -> None:
        for worker in workers:
            self._supervisor.start(worker)
        starts = [asyncio.shield(worker.started) for worker in workers]
        for start in starts:
            # The first error is told; that of another, or after a cancelled start, must not end up on standard error.
            start.add_done_callback(lambda done: done.cancelled() or done.exception())
        for start in asyncio.as_completed(starts):
            await start
            on_ready()

    def _dismiss(self, worker: Worker) -> asyncio.Task[None]:
        """Take a worker out of the crew, once; the task is done when its process is gone."""
        if worker in self._leaving:
            return self._leaving[worker]
        if worker is self.standin:
            self.standin = None
        if worker is self.replay:
            self.replay = None
        self._set_workers([kept for kept in self.workers if kept is not worker])
        self._wishes.pop(worker, None)
        self._leaving[worker] = self._loop.create_task(self._supervisor.stop(worker))
        self._leaving[worker].add_done_callback(lambda _: self._gone(worker))
        return self._leaving[worker]

    def _gone(self, worker: Worker) -> None:
        del self._leaving[worker]
        self._on_change()

    async def _gone_or_held(self, worker: Worker, going: asyncio.Task[None]) -> None:
        while not going.done() and worker.hold is None:
            await asyncio.wait({going}, timeout=0.05)

    def _drop_wishes(self, now_ns: int) -> None:
        for worker, wish in list(self._wishes.items()):
            if wish.is_over(worker.debugger is not None, worker.hold is not None, now_ns):
                del self._wishes[worker]
                if worker is self.replay:
                    self._dismiss(worker)

    def _switch_breakpoints(self) -> None:
        for worker in (*self.everyone, *self._leaving):
            is_live = self.is_live and worker not in self._leaving
            on = breakpoints_on(worker.role, is_live, self._is_another_held(worker))
            # One that is starting reads no message yet; it is told when it is ready.
            if on != worker.breakpoints and worker.ready_at_s is not None:
                worker.breakpoints = on
                worker.channel.send({"op": "breakpoints", "on": on})

    def _is_another_held(self, worker: Worker) -> bool:
        return any(other.hold is not None for other in self.everyone if other is not worker)

    def _is_engaged(self, worker: Worker) -> bool:
        wish = self._wishes.get(worker)
        return worker.hold is not None or worker.is_renewing or (wish is not None and wish.stops)

    def _review_standin(self) -> None:
        is_wanted = is_standin_wanted(Standing(w.is_serving, self._is_engaged(w)) for w in self.workers)
        if is_wanted or (self.standin is not None and self._is_engaged(self.standin)):
            self._keep_standin()
            if self.standin is None and self.is_live and not self._standin_failed:
                self._start_standin()
        elif self.standin is None:
            self._standin_failed = False
        elif self._standin_leaves is None:
            # A breakpoint that holds again and again would start one again and again.
            self._standin_leaves = self._loop.call_later(LINGER_S, self._let_standin_go)

    def _keep_standin(self) -> None:
        if self._standin_leaves is not None:
            self._standin_leaves.cancel()
            self._standin_leaves = None

    def _start_standin(self) -> None:
        [index] = self._free_indexes(1)
        self.standin = self._new("stand-in", index)
        self._set_workers(self.workers)
        logger.info("worker %d stands in", index, extra={"endpoint": self._owner.name, "worker": index})
        self._supervisor.start(self.standin)
        self.standin.started.add_done_callback(self._standin_started)

    def _standin_started(self, started: asyncio.Future[None]) -> None:
        failed = started.cancelled() or started.exception() is not None
        if failed and self.standin is not None and self.standin.started is started:
            self._standin_failed = True
            self._dismiss(self.standin)

    def _let_standin_go(self) -> None:
        self._standin_leaves = None
        if self.standin is not None:
            logger.info(
                "worker %d need not stand in any more", self.standin.index, extra={"endpoint": self._owner.name}
            )
            self._dismiss(self.standin)

"""Gives what waits to free workers: batches, and requests that are for one worker alone. Server process."""

from __future__ import annotations

import asyncio
import time

from nbserve.server.batcher import Batcher
from nbserve.server.crew import Crew
from nbserve.server.direct import DirectRequests
from nbserve.server.placement import DeviceSlots
from nbserve.server.supervisor import Supervisor
from nbserve.server.worker import Worker
from nbserve.server.worker_state import WorkerState


class Dispatcher:
    """Between one version's queue and its workers; it keeps to the places that their devices have."""

    def __init__(self, batcher: Batcher, crew: Crew, supervisor: Supervisor, slots: DeviceSlots) -> None:
        self.direct = DirectRequests()
        self.became_empty = asyncio.Event()
        self._batcher = batcher
        self._crew = crew
        self._supervisor = supervisor
        self._slots = slots
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._is_scheduled = False

    def schedule(self) -> None:
        """Decide once for all rows that arrive in this turn of the event loop."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self.dispatch)

    def dispatch(self) -> None:
        """Send what is due to whoever is free."""
        self._is_scheduled = False
        if self._timer is not None:
            self.cancel()
        now_ns = time.monotonic_ns()
        if self.direct.waiting:
            self._dispatch_direct(now_ns)
        while self._batcher.waiting and (worker := self._free_worker()) is not None:
            idle = self._idle_workers()
            due_in_ns = self._batcher.due_in_ns(now_ns, idle) if idle else 0
            if due_in_ns is None:
                break
            if due_in_ns > 0:
                self._timer = self._loop.call_later(due_in_ns / 1e9, self.dispatch)
                break
            self._send(worker, now_ns, idle)
        if not self._batcher.waiting:
            self.became_empty.set()

    def cancel(self) -> None:
        """Forget what was to become due later."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def take_slot(self, worker: Worker) -> None:
        """The worker's batch runs on its device."""
        if not worker.has_slot:
            worker.has_slot = True
            self._slots.acquire(worker.device)

    def free_slot(self, worker: Worker) -> None:
        """The worker has no batch, or is held with it: another may run on the device."""
        if worker.has_slot:
            worker.has_slot = False
            self._slots.release(worker.device)

    def _dispatch_direct(self, now_ns: int) -> None:
        for worker in self.direct.workers():
            if not worker.is_idle or not self._slots.has_room(worker.device, self.schedule):
                continue
            if (request := self.direct.take(worker)) is not None:
                self.take_slot(worker)
                self._supervisor.send(worker, [request], now_ns, 0)

    def _send(self, worker: Worker, now_ns: int, idle: int) -> None:
        tickets = self._batcher.take(now_ns, idle_workers=idle)
        if not tickets:
            return
        self.take_slot(worker)
        self._supervisor.send(worker, tickets, now_ns, self._batcher.held_since_ns)

    def _free_worker(self) -> Worker | None:
        """An idle worker whose device has room; else, for a full batch only, one that is at its last."""
        if (preferred := self._crew.preferred) is not None and self._is_idle(preferred):
            return preferred
        for worker in self._crew.rotation:
            if worker.is_idle and self._slots.has_room(worker.device, self.schedule):
                return worker
        if not self._batcher.has_full_batch():
            return None
        return next((worker for worker in self._crew.rotation if self._may_send_ahead(worker)), None)

    def _is_idle(self, worker: Worker) -> bool:
        return worker.is_idle and self._slots.has_room(worker.device)

    def _may_send_ahead(self, worker: Worker) -> bool:
        """One that is hung, writes or is in a debugger would keep the batch, one that a request waits for stay busy."""
        is_last = worker.state is WorkerState.BUSY and worker.in_flight == 1
        is_stuck = worker.is_hung or worker.is_writing or worker.debugger is not None
        return is_last and not is_stuck and worker not in self.direct

    def _idle_workers(self) -> int:
        """Workers that could take a batch now: idle, on a device with room."""
        idle = 0
        for worker in self._crew.rotation:
            if worker.is_idle and self._slots.has_room(worker.device):
                idle += 1
        return idle

"""One version of an endpoint: a bundle, its workers and the batches between them. Server process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from nbserve import wire
from nbserve.bundle.bundle import Bundle
from nbserve.config import EndpointConfig
from nbserve.errors import NbserveError, ResponseTimeout, StartError, Unavailable, WorkerDied
from nbserve.server.batcher import Batcher
from nbserve.server.channel import InFlight
from nbserve.server.logbook import logger
from nbserve.server.metrics import EndpointMetrics
from nbserve.server.placement import DeviceSlots, Placement
from nbserve.server.spans import SpanStore
from nbserve.server.supervisor import LossCause, Supervisor, Worker
from nbserve.server.ticket import Ticket
from nbserve.server.worker_state import WorkerState


class Version:
    """Takes tickets, forms batches, gives them to its workers and the answers back to the tickets."""

    def __init__(
        self,
        name: str,
        bundle: Bundle,
        config: EndpointConfig,
        supervisor: Supervisor,
        placement: Placement,
        slots: DeviceSlots,
        spans: SpanStore,
        metrics: EndpointMetrics,
        id_prefix: str,
    ) -> None:
        self.name = name
        self.bundle = bundle
        self.config = config
        self.batcher = Batcher(config)
        self.workers: list[Worker] = []
        self.is_serving = False
        self._supervisor = supervisor
        self._placement = placement
        self._slots = slots
        self._spans = spans
        self._metrics = metrics
        self._id_prefix = id_prefix
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._is_scheduled = False
        self._became_empty = asyncio.Event()

    @property
    def version(self) -> str:
        return self.bundle.version

    @property
    def is_ready(self) -> bool:
        return any(worker.state in (WorkerState.READY, WorkerState.BUSY) for worker in self.workers)

    def _is_given_up(self) -> bool:
        # Asked for each request: nearly always the first worker settles it.
        return self.workers[0].is_given_up and all(worker.is_given_up for worker in self.workers)

    async def start(self, on_progress: Callable[[str], None]) -> None:
        """Start the workers; all of them get ready, or none stays and StartError says why.

        Raises ConfigError for a device that this machine does not have.
        """
        for index in range(self.config.workers):
            self._placement.device(self.config, index)
        self.workers = [Worker(index, self, self._supervisor) for index in range(self.config.workers)]
        try:
            await self._start_workers(self.workers, on_progress)
        except BaseException:
            await self.stop()
            raise

    async def _start_workers(self, workers: Sequence[Worker], on_progress: Callable[[str], None]) -> None:
        for worker in workers:
            self._supervisor.start(worker)
        starts = asyncio.as_completed([asyncio.shield(w.started) for w in workers], timeout=self.config.start_timeout_s)
        for ready, started in enumerate(starts, 1):
            try:
                await started
            except (TimeoutError, asyncio.TimeoutError):
                raise self._start_timeout(workers) from None
            on_progress(f"{ready} of {len(workers)} workers ready")

    def _start_timeout(self, workers: Sequence[Worker]) -> StartError:
        for worker in workers:
            if worker.state is WorkerState.STARTING:
                self._supervisor.dump_stack(worker)
        limit_s = self.config.start_timeout_s
        return StartError(f"initialize took longer than {limit_s:g} s (start_timeout_s); the log shows where it was")

    async def stop(self) -> None:
        """End all workers after what they have in flight."""
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(*(self._supervisor.stop(worker) for worker in self.workers))
        self.refuse_waiting(Unavailable(f"version {self.version} of {self.name} was stopped"))

    async def drain(self) -> None:
        """Answer everything that waits or runs, then stop."""
        while self.batcher.waiting or any(worker.in_flight for worker in self.workers):
            if self._is_given_up():
                break
            self._became_empty.clear()
            await self._became_empty.wait()
        await self.stop()

    async def configure(self, config: EndpointConfig) -> None:
        """Take over settings that need no new version, workers among them; done when new workers are ready."""
        self.config = config
        self.batcher.configure(config)
        leaving = self.workers[config.workers :]
        self.workers = self.workers[: config.workers]
        added = [Worker(index, self, self._supervisor) for index in range(len(self.workers), config.workers)]
        self.workers += added
        stopping = [asyncio.ensure_future(self._supervisor.stop(worker)) for worker in leaving]
        for worker in self.workers:
            worker.channel.send({"op": "configure", **self._live_spec(worker.index)})
        try:
            await self._start_workers(added, lambda _: None)
        except StartError:
            self.workers = [worker for worker in self.workers if worker not in added]
            await asyncio.gather(*(self._supervisor.stop(worker) for worker in added))
            raise
        finally:
            await asyncio.gather(*stopping)
            self._schedule()

    def worker_spec(self, worker: Worker) -> dict[str, Any]:
        """What the nursery and the new worker need to know."""
        return {
            "bundle": str(self.bundle.path),
            "endpoint": self.name,
            "version": self.version,
            "worker_index": worker.index,
            "device": self._placement.device(self.config, worker.index),
            "cpus": self._placement.cpus(self.config, worker.index),
            "id_prefix": self._id_prefix,
            **self._live_spec(worker.index),
        }

    def _live_spec(self, index: int) -> dict[str, Any]:
        return {
            "threads": self._placement.threads(self.config),
            "isolate_errors": self.config.isolate_errors,
            "max_batch_size": self.config.max_batch_size,
        }

    def submit(self, ticket: Ticket) -> None:
        """Queue a row; raises Overloaded when the queue is full and Unavailable when no worker will ever take it."""
        if self._is_given_up():
            raise Unavailable(f"no worker of {self.name} can be started: {self.workers[0].last_error}")
        self.batcher.add(ticket, time.monotonic_ns())
        self._schedule()

    def requeue(self, tickets: Sequence[Ticket]) -> None:
        """Take over rows that wait at another version."""
        self.batcher.put_back([ticket for ticket in tickets if not ticket.attempts])
        for ticket in tickets:
            if ticket.attempts:
                self.batcher.retry(ticket)
        self._schedule()

    def refuse_waiting(self, error: NbserveError) -> None:
        for ticket in self.batcher.take_all():
            _fail(ticket, error)

    def _schedule(self) -> None:
        """Decide once for all rows that arrive in this turn of the event loop."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._is_scheduled = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now_ns = time.monotonic_ns()
        while self.batcher.waiting and (worker := self._free_worker()) is not None:
            idle = self._idle_workers()
            due_in_ns = self.batcher.due_in_ns(now_ns, idle) if idle else 0
            if due_in_ns is None:
                break
            if due_in_ns > 0:
                self._timer = self._loop.call_later(due_in_ns / 1e9, self._dispatch)
                break
            self._send(worker, now_ns, idle)
        if not self.batcher.waiting:
            self._became_empty.set()

    def _send(self, worker: Worker, now_ns: int, idle: int) -> None:
        tickets = self.batcher.take(now_ns, idle_workers=idle)
        if not tickets:
            return
        if not worker.in_flight:
            self._slots.acquire(worker.device)
        self._supervisor.send(worker, tickets, now_ns, self.batcher.held_since_ns)

    def _free_worker(self) -> Worker | None:
        """An idle worker whose device has room; else, for a full batch only, one that is at its last."""
        for worker in self.workers:
            if worker.state is WorkerState.READY and self._slots.has_room(worker.device, self._schedule):
                return worker
        if not self.batcher.has_full_batch():
            return None
        busy = (w for w in self.workers if w.state is WorkerState.BUSY and w.in_flight == 1 and not w.is_hung)
        return next(busy, None)

    def _idle_workers(self) -> int:
        """Workers that could take a batch now: idle, on a device with room."""
        idle = 0
        for worker in self.workers:
            if worker.state is WorkerState.READY and self._slots.has_room(worker.device):
                idle += 1
        return idle

    def on_ready(self, worker: Worker) -> None:
        self._schedule()

    def on_results(self, worker: Worker, batch: InFlight, results: wire.Results) -> None:
        now_ns = time.monotonic_ns()
        self.batcher.finished(batch.tickets, now_ns - batch.started_ns, now_ns)
        if not worker.in_flight:
            self._slots.release(worker.device)
        # The worker gets its next batch before the clients get their answers: it must not wait for our writes.
        self._dispatch()
        for ticket, row in zip(batch.tickets, results.rows, strict=True):
            _answer(ticket, row.status, row.head, row.body)
        if not self.is_serving:
            return  # Only the probe ran: it is no client's request.
        sent_ns = time.monotonic_ns()
        self._spans.record(worker.index, batch, results.stamps, sent_ns, batch.held_since_ns)
        self._metrics.observe_batch(batch.tickets, [row.status for row in results.rows], results.stamps, sent_ns)

    def on_event(self, worker: Worker, event: dict[str, Any]) -> None:
        who = {"endpoint": self.name, "worker": worker.index}
        if event["event"] == "handler_error":
            worker.last_error, worker.last_traceback = event["error"], event["traceback"]
            requests = ", ".join(f"{self._id_prefix}-{number:x}" for number in event["request_ids"])
            logger.error("request %s failed: %s\n%s", requests, event["error"], event["traceback"].rstrip(), extra=who)
        elif event["event"] == "metrics":
            self._metrics.observe_user_metrics(worker.index, event)
        else:
            logger.warning("%s sent the unknown event %r", worker, event["event"], extra=who)

    def on_lost(self, worker: Worker, batches: list[InFlight], cause: LossCause) -> None:
        """The rows the worker was at are tried once more, each alone; those sent ahead just wait again."""
        self._slots.release(worker.device)
        running, *ahead = batches
        self.batcher.put_back([ticket for batch in ahead for ticket in batch.tickets])
        for ticket in running.tickets:
            ticket.attempts += 1
            if ticket.attempts > 1 or (cause == "response time-out" and len(running.tickets) == 1):
                self._give_up(ticket, cause)
            else:
                self.batcher.retry(ticket)
        self._schedule()

    def _give_up(self, ticket: Ticket, cause: LossCause) -> None:
        if cause == "died":
            error: NbserveError = WorkerDied("the worker process ended twice while it had this request")
        else:
            error = ResponseTimeout(f"the handler gave no answer within {self.config.response_timeout_s:g} s")
        _fail(ticket, error)
        self._metrics.count_refused(error.status)


def _fail(ticket: Ticket, error: NbserveError) -> None:
    body = orjson.dumps({"code": error.status, "type": error.kind, "message": error.client_text})
    _answer(ticket, error.status, b"", body)


def _answer(ticket: Ticket, status: int, head: bytes, body: bytes | memoryview) -> None:
    # One client that cannot be answered must not cost the others of its batch their answers.
    try:
        ticket.resolve(status, head, body)
    except Exception:
        logger.exception("answering request %x failed", ticket.request_id)

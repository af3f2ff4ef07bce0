"""One version of an endpoint: a bundle, its workers and the batches between them. Server process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nbserve import wire
from nbserve.bundle.bundle import Bundle
from nbserve.config import EndpointConfig
from nbserve.errors import NbserveError, Overloaded, ResponseTimeout, Unavailable, WorkerDied
from nbserve.server.batcher import Batcher
from nbserve.server.channel import InFlight
from nbserve.server.crew import Crew
from nbserve.server.dispatcher import Dispatcher
from nbserve.server.failures import Failure, Failures
from nbserve.server.logbook import logger
from nbserve.server.metrics import EndpointMetrics
from nbserve.server.own_request import OwnRequest
from nbserve.server.placement import DeviceSlots, Placement
from nbserve.server.recording import STARTUP_S, Recording
from nbserve.server.spans import SpanStore
from nbserve.server.specs import live_spec, start_spec
from nbserve.server.supervisor import Supervisor
from nbserve.server.ticket import Ticket
from nbserve.server.worker import LossCause, Worker


@dataclass(frozen=True)
class Surroundings:
    """What the versions of an endpoint share. `debug_socket` makes the path for a worker's agent (None: no debugging);
    `failures` is where requests that failed are kept, `on_change` hears that a worker is held or debugged. `profile`
    says what a worker records from its start on (None: nothing). `label` is who its log is about, if not the endpoint.
    """

    name: str
    id_prefix: str
    supervisor: Supervisor
    placement: Placement
    slots: DeviceSlots
    spans: SpanStore
    metrics: EndpointMetrics
    on_change: Callable[[], None]
    failures: Failures | None = None
    debug_socket: Callable[[int], str] | None = None
    label: str = ""
    profile: Callable[[Version, Worker], dict[str, Any] | None] | None = None


class Version:
    """Takes tickets, forms batches, gives them to its workers and the answers back to the tickets."""

    def __init__(self, bundle: Bundle, config: EndpointConfig, around: Surroundings) -> None:
        self.name = around.name
        self.label = around.label or around.name
        self.id_prefix = around.id_prefix
        self.bundle = bundle
        # Whose recorded requests try it out before it serves.
        self.recorded = bundle
        self.config = config
        self.batcher = Batcher(config)
        self.crew = Crew(self, around.supervisor, around.on_change)
        self.dispatcher = Dispatcher(self.batcher, self.crew, around.supervisor, around.slots)
        self.is_serving = False
        self.startup: Recording | None = None
        self.around = around
        self._supervisor = around.supervisor
        self._is_ending = False

    @property
    def version(self) -> str:
        return self.bundle.version

    @property
    def spans(self) -> SpanStore:
        return self.around.spans

    @property
    def is_ready(self) -> bool:
        return any(worker.is_serving for worker in self.crew.rotation)

    @property
    def is_held(self) -> bool:
        """Whether nothing serves because a debugger has the only workers that could."""
        return not self.is_ready and any(worker.hold is not None for worker in self.crew.rotation)

    @property
    def is_given_up(self) -> bool:
        """Whether no worker will ever take a request."""
        return self._given_up() is not None

    def _given_up(self) -> Worker | None:
        # Asked for each request: nearly always the first worker settles it.
        workers = self.crew.workers
        if not workers or not workers[0].is_given_up:
            return None
        return workers[0] if all(worker.is_given_up for worker in workers) else None

    async def start(self, on_progress: Callable[[str], None]) -> None:
        """Start the workers; all of them get ready, or none stays and StartError says why.

        Raises ConfigError for a device that this machine does not have.
        """
        for index in range(self.config.workers):
            self.around.placement.device(self.config, index)
        try:
            await self.crew.start(self.config.workers, on_progress)
        except BaseException:
            await self.stop()
            raise

    def serve(self) -> None:
        """From here on clients' requests come."""
        self.is_serving = self.crew.is_live = True
        self.crew.review()
        if self.startup is not None:
            self.startup.stop_in(STARTUP_S)

    async def stop(self) -> None:
        """End all workers after what they have in flight."""
        self.dispatcher.cancel()
        await self.crew.stop()
        error = Unavailable(f"version {self.version} of {self.name} was stopped")
        self.refuse_waiting(error)
        self.dispatcher.direct.refuse(error)

    async def drain(self) -> None:
        """Answer everything that waits or runs, what is held included, then stop; breakpoints do not hold any more."""
        self.crew.is_live = False
        self.crew.review()
        while self.batcher.waiting or any(worker.in_flight for worker in self.crew.everyone):
            if self._given_up():
                break
            self.dispatcher.became_empty.clear()
            await self.dispatcher.became_empty.wait()
        await self.stop()

    def end_holds(self) -> None:
        """The endpoint is stopping: who is held, now or from now on, is ended, and the requests get 503."""
        self._is_ending = True
        self.crew.is_live = False
        for worker in self.crew.everyone:
            if worker.hold is not None:
                self._end_held(worker)

    def _end_held(self, worker: Worker) -> None:
        error = Unavailable(f"{self.name} was stopped while a debugger held this request")
        batches = self._supervisor.end(worker)
        self.dispatcher.free_slot(worker)
        for ticket in (ticket for batch in batches for ticket in batch.tickets):
            self._refuse(ticket, error)
        if not self.is_ready:
            self.refuse_waiting(error)
        self.dispatcher.schedule()

    async def configure(self, config: EndpointConfig) -> None:
        """Take over settings that need no new version, workers among them; done when new workers are ready."""
        self.config = config
        self.batcher.configure(config)
        for worker in self.crew.everyone:
            worker.channel.send({"op": "configure", **live_spec(self)})
        try:
            await self.crew.configure(config)
        finally:
            self.dispatcher.schedule()

    def worker_spec(self, worker: Worker) -> dict[str, Any]:
        return start_spec(self, worker)

    def submit(self, ticket: Ticket) -> None:
        """Queue a row; raises Overloaded when the queue is full and Unavailable when no worker will ever take it."""
        if (worker := self._given_up()) is not None:
            raise self._no_worker(worker)
        if self._is_ending and not self.is_ready:
            raise Unavailable(f"{self.name} is stopping")
        try:
            self.batcher.add(ticket, time.monotonic_ns())
        except Overloaded as error:
            self._count_refused(ticket, error)
            raise
        self.dispatcher.schedule()

    def submit_to(self, worker: Worker, request: OwnRequest) -> None:
        """Give a request to one worker, alone, as soon as it is free."""
        self.dispatcher.direct.add(worker, request)
        self.dispatcher.schedule()

    def dump_stack(self, worker: Worker) -> None:
        self._supervisor.dump_stack(worker)

    def requeue(self, tickets: Sequence[Ticket]) -> None:
        """Take over rows that wait at another version."""
        self.batcher.put_back([ticket for ticket in tickets if not ticket.attempts])
        for ticket in tickets:
            if ticket.attempts:
                self.batcher.retry(ticket)
        self.dispatcher.schedule()

    def refuse_waiting(self, error: NbserveError) -> None:
        for ticket in self.batcher.take_all():
            ticket.fail(error)

    def on_ready(self, worker: Worker) -> None:
        self.crew.review()
        self.dispatcher.schedule()

    def on_results(self, worker: Worker, batch: InFlight, results: wire.Results) -> None:
        now_ns = time.monotonic_ns()
        is_direct = batch.tickets[0].is_direct
        if not is_direct:
            self.batcher.finished(batch.tickets, now_ns - batch.started_ns, now_ns)
        if worker.has_slot and not worker.channel.in_flight:
            self.dispatcher.free_slot(worker)
        # The worker gets its next batch before the clients get their answers: it must not wait for our writes.
        self.dispatcher.dispatch()
        for ticket, row in zip(batch.tickets, results.rows, strict=True):
            ticket.answer(row.status, row.head, row.body)
        if not self.is_serving:
            return  # Only the probe ran: it is no client's request.
        statuses = [row.status for row in results.rows]
        failed = sum(status >= 400 for status in statuses) if max(statuses) >= 400 else 0
        if self.around.failures is not None and (worker.failing or failed):
            self._keep_failures(worker, batch, statuses)
        if is_direct:
            return
        sent_ns = time.monotonic_ns()
        self.around.spans.record(worker.index, batch, results.stamps, sent_ns, batch.held_since_ns, self, failed)
        self.around.metrics.observe_batch(batch.tickets, batch.sent_ns, statuses, results.stamps, sent_ns)

    def on_event(self, worker: Worker, event: dict[str, Any]) -> None:
        if event["event"] == "handler_error":
            worker.went_wrong(event["error"], event["traceback"])
            worker.failed_ns = time.monotonic_ns()
            if self.around.failures is not None:
                worker.failing.update(dict.fromkeys(event["request_ids"], event["error"]))
            requests = ", ".join(map(self._id_text, event["request_ids"]))
            logger.error(
                "request %s failed: %s\n%s", requests, event["error"], event["traceback"].rstrip(), extra=worker.who
            )
        elif event["event"] == "metrics":
            self.around.metrics.observe_user_metrics(worker.index, event, worker.pid)
        else:
            logger.warning("%s sent the unknown event %r", worker, event["event"], extra=worker.who)

    def on_held(self, worker: Worker, ahead: list[InFlight]) -> None:
        """Others take what was sent ahead to it, and its place on the device."""
        self.dispatcher.free_slot(worker)
        self.batcher.put_back([ticket for batch in ahead for ticket in batch.tickets])
        logger.info("%s", hold_text(worker), extra=worker.who)
        if self._is_ending:
            self._end_held(worker)
        self.crew.review()
        self.dispatcher.schedule()

    def on_resumed(self, worker: Worker) -> None:
        if worker.in_flight:
            self.dispatcher.take_slot(worker)
        logger.info("worker %d goes on", worker.index, extra=worker.who)
        self.crew.review()
        self.dispatcher.schedule()

    def on_debugger(self, worker: Worker) -> None:
        self.crew.debugger_changed(worker)

    def on_written(self) -> None:
        self.dispatcher.schedule()

    def on_lost(self, worker: Worker, batches: list[InFlight], cause: LossCause) -> None:
        """The rows the worker was at are tried once more, each alone; those sent ahead just wait again."""
        self.dispatcher.free_slot(worker)
        running, *ahead = batches
        self.batcher.put_back([ticket for batch in ahead for ticket in batch.tickets])
        for ticket in running.tickets:
            ticket.attempts += 1
            if ticket.attempts > 1 or (cause == "response time-out" and len(running.tickets) == 1):
                self._give_up(worker, ticket, cause)
            else:
                self.batcher.retry(ticket)
        self.dispatcher.schedule()

    def on_ended(self, worker: Worker) -> None:
        if worker.pid is not None:
            self.around.metrics.forget_worker(worker.pid)
        self.dispatcher.direct.refuse(
            Unavailable(f"worker {worker.index} ended before it could take the request"), worker
        )
        self.crew.review()

    def on_given_up(self) -> None:
        """What waits need not wait when no worker will ever take it; a stand-in is the last that might."""
        if (worker := self._given_up()) is not None and self.crew.standin is None:
            self.refuse_waiting(self._no_worker(worker))
            self.dispatcher.schedule()

    def _no_worker(self, worker: Worker) -> Unavailable:
        return Unavailable(f"no worker of {self.name} can be started: {worker.last_error}")

    def _give_up(self, worker: Worker, ticket: Ticket, cause: LossCause) -> None:
        if cause == "died":
            often = "while" if ticket.is_direct else "twice while"
            error: NbserveError = WorkerDied(f"the worker process ended {often} it had this request")
        else:
            error = ResponseTimeout(f"the handler gave no answer within {self.config.response_timeout_s:g} s")
        self._keep_failure(worker, ticket, str(error))
        self._refuse(ticket, error)

    def _refuse(self, ticket: Ticket, error: NbserveError) -> None:
        ticket.fail(error)
        self._count_refused(ticket, error)

    def _count_refused(self, ticket: Ticket, error: NbserveError) -> None:
        if ticket.is_counted:
            self.around.metrics.count_refused(error.status)

    def _keep_failures(self, worker: Worker, batch: InFlight, statuses: list[int]) -> None:
        for ticket, status in zip(batch.tickets, statuses, strict=True):
            if status >= 500:
                error = worker.failing.get(ticket.request_id, f"the handler answered with status {status}")
                self._keep_failure(worker, ticket, error)
        worker.failing.clear()

    def _keep_failure(self, worker: Worker, ticket: Ticket, error: str) -> None:
        failures = self.around.failures
        if failures is None or (isinstance(ticket, OwnRequest) and ticket.is_replay):
            return
        request_id = self._id_text(ticket.request_id)
        failures.add(Failure(request_id, error, ticket.meta, bytes(ticket.body), worker.index, worker.pid))

    def _id_text(self, number: int) -> str:
        return f"{self.id_prefix}-{number:x}"


def hold_text(worker: Worker) -> str:
    """What the log says of a held worker."""
    assert worker.hold is not None
    text = f"worker {worker.index} is held at {worker.hold}"
    if worker.debugger is not None:
        return f"{text} by {worker.debugger.who}"
    goes_on_in_s = worker.hold.goes_on_in_s(worker.hold.since_s)
    end = "" if goes_on_in_s is None else f"; it goes on after {goes_on_in_s:g} s"
    return f"{text}: nbserve attach {worker.owner.name}{end}"

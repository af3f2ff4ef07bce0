"""The handler in a thread of its own, run as a worker runs it. Runs in Ray's replica."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor

from nbserve.errors import ConfigError, StartError
from nbserve.ray.metrics import HandlerMetrics, HandlerReport
from nbserve.wire import Batch
from nbserve.worker import process
from nbserve.worker.context import request_text
from nbserve.worker.debug.hooks import BreakpointHook
from nbserve.worker.runner import HANDLER_ERRORS, Outcome, Runner
from nbserve.worker.spec import WorkerSpec
from nbserve.worker.tracebacks import summary_of, traceback_of
from nbserve.worker.worker import start_handler

logger = logging.getLogger("ray.serve")


class Engine:
    """One handler, made and called in one thread, as handlers expect; the event loop goes on meanwhile."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._metrics = HandlerMetrics()
        self._report = HandlerReport(spec.endpoint, self._metrics)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nbserve-handler")
        self._busy_since_s: float | None = None
        self._runner = self._thread.submit(self._start).result()

    def run(self, batch: Batch) -> Future[Outcome]:
        """Take a batch through the handler."""
        return self._thread.submit(self._run, batch)

    def configure(self, *, isolate_errors: bool) -> None:
        self._runner.isolate_errors = isolate_errors

    def busy_s(self) -> float:
        """For how long it has been at its batch; 0 when it has none."""
        since_s = self._busy_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def report(self) -> None:
        """Send what threads of the handler counted between two batches."""
        self._report.send()

    def _start(self) -> Runner:
        # Ray's own hook would hold the replica until somebody attaches.
        BreakpointHook(None).install()
        process.set_threads(self._spec.threads)
        process.reseed()
        try:
            return start_handler(self._spec, self._metrics)
        except HANDLER_ERRORS as error:
            if isinstance(error, ConfigError):
                raise
            raise StartError(f"{summary_of(error)}\n{traceback_of(error)}") from None

    def _run(self, batch: Batch) -> Outcome:
        self._busy_since_s = time.monotonic()
        try:
            outcome = self._runner.run(batch)
        finally:
            self._busy_since_s = None
        for event in outcome.events:
            requests = ", ".join(request_text(self._spec.id_prefix, number) for number in event["request_ids"])
            logger.error("request %s failed: %s\n%s", requests, event["error"], event["traceback"].rstrip())
        self._report.send()
        return outcome

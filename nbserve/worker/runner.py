"""Runs batches through one handler: frames' rows in, answers out, nothing sent from here. Runs in the worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from nbserve import wire
from nbserve.errors import BadRequest, FailedInDebugger, HandlerFailed, NbserveError
from nbserve.handler import Context
from nbserve.wire import Result, Row
from nbserve.worker.context import RequestViews, request_text
from nbserve.worker.encode import encode_result, encode_rows, failure
from nbserve.worker.stages import Pipeline, Watch
from nbserve.worker.tracebacks import summary_of, traceback_of

# What a handler may raise without ending its worker; `sys.exit()` in a handler is a failure like another.
HANDLER_ERRORS = (Exception, SystemExit, KeyboardInterrupt)
DecodeRow = Callable[[bytes, memoryview], Any]
OnFailure = Callable[[Sequence[Row], BaseException], None]


class Outcome(NamedTuple):
    """The answers to a batch, one for each row, and events about it that go out before them."""

    stamps: wire.Stamps
    results: list[Result]
    events: list[dict[str, Any]]


class Runner:
    """Takes batches through a handler. A batch that fails runs again row by row, so that one bad row fails alone.

    A debugger puts a pipeline of its own in the place of `pipeline` while it is attached.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        context: Context,
        decode_row: DecodeRow,
        *,
        id_prefix: str = "",
        isolate_errors: bool = True,
        handler: Any = None,
    ) -> None:
        self.isolate_errors = isolate_errors
        self.pipeline = pipeline
        self.handler = handler
        self.on_failure: OnFailure | None = None
        self._context = context
        self._decode_row = decode_row
        self._id_prefix = id_prefix

    def run(self, batch: wire.Batch) -> Outcome:
        watch = Watch(time.monotonic_ns())
        failures = Failures(self._id_prefix, self.on_failure)
        rows, bodies, refused = self._decode(batch.rows)
        results = self._answer(rows, bodies, watch, failures) if rows else []
        if refused:
            results = list(_merge(len(batch.rows), refused, results))
        return Outcome(watch.stamps(), results, failures.events())

    @property
    def has_run(self) -> bool:
        """Whether a batch came before."""
        return isinstance(self._context.requests, RequestViews)

    def request_ids(self) -> tuple[int, ...]:
        """Which requests the handler has, while it runs."""
        requests = self._context.requests
        return requests.ids() if isinstance(requests, RequestViews) else ()

    def _decode(self, rows: list[Row]) -> tuple[list[Row], list[Any], dict[int, Result]]:
        """The rows that can be decoded, their bodies, and by position the answers to those that cannot."""
        decode_row = self._decode_row
        try:
            return rows, [decode_row(row.meta, row.body) for row in rows], {}
        except BadRequest:
            return self._decode_each(rows)

    def _decode_each(self, rows: list[Row]) -> tuple[list[Row], list[Any], dict[int, Result]]:
        good: list[Row] = []
        bodies: list[Any] = []
        refused: dict[int, Result] = {}
        for position, row in enumerate(rows):
            try:
                bodies.append(self._decode_row(row.meta, row.body))
                good.append(row)
            except BadRequest as error:
                refused[position] = failure(error.status, error.kind, error.client_text)
        return good, bodies, refused

    def _answer(self, rows: list[Row], bodies: list[Any], watch: Watch, failures: Failures) -> list[Result]:
        try:
            outputs = self._call(rows, bodies, watch)
        except HANDLER_ERRORS as error:
            # Dealt with below: what a row raises when run alone must not have this error as its context.
            failed = error
        except FailedInDebugger as error:
            return [failure(error.status, error.kind, error.client_text) for _ in rows]
        else:
            return self._encode(rows, outputs, failures)
        try:
            if len(rows) > 1 and self.isolate_errors:
                return self._answer_alone(rows, failed, failures)
            return failures.answers(rows, failed)
        finally:
            # Its traceback refers to this frame: together they would keep the batch until the garbage is collected.
            del failed

    def _call(self, rows: list[Row], bodies: list[Any], watch: Watch) -> Sequence[Any]:
        """The one place where a handler runs."""
        self._context.requests = RequestViews(rows, self._id_prefix)
        return self.pipeline(bodies, self._context, watch)

    def _answer_alone(self, rows: list[Row], batch_error: BaseException, failures: Failures) -> list[Result]:
        results: list[Result] = []
        for row in rows:
            # Decoded again, as the failed attempt may have changed the body.
            bodies = [self._decode_row(row.meta, row.body)]
            results += self._answer([row], bodies, Watch(0), failures)
        if not failures and not isinstance(batch_error, NbserveError):
            failures.note(rows, batch_error, "the batch failed, its rows did not when run alone")
        return results

    def _encode(self, rows: list[Row], outputs: Sequence[Any], failures: Failures) -> list[Result]:
        try:
            return encode_rows(outputs)
        except HANDLER_ERRORS:
            return [self._encode_alone(row, output, failures) for row, output in zip(rows, outputs, strict=True)]

    def _encode_alone(self, row: Row, output: Any, failures: Failures) -> Result:
        try:
            return encode_result(output)
        except HANDLER_ERRORS as error:
            return failures.answers([row], error)[0]


class Failures:
    """What went wrong in a batch: answers for clients, and for the log each distinct traceback once."""

    def __init__(self, id_prefix: str, on_failure: OnFailure | None = None) -> None:
        self._id_prefix = id_prefix
        self._on_failure = on_failure
        self._by_traceback: dict[str, tuple[str, list[int]]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_traceback)

    def answers(self, rows: Sequence[Row], error: BaseException) -> list[Result]:
        """The answers to rows that failed with `error`; notes it, unless it is the clients' mistake."""
        if not isinstance(error, NbserveError) or error.status >= 500:
            self.note(rows, error)
        return [self._answer(row, error) for row in rows]

    def note(self, rows: Sequence[Row], error: BaseException, remark: str = "") -> None:
        summary = f"{summary_of(error)} ({remark})" if remark else summary_of(error)
        _, ids = self._by_traceback.setdefault(traceback_of(error), (summary, []))
        ids.extend(row.request_id for row in rows)
        if self._on_failure is not None:
            self._on_failure(rows, error)

    def events(self) -> list[dict[str, Any]]:
        return [
            {
                "event": "handler_error",
                "request_id": ids[0],
                "request_ids": ids,
                "error": summary,
                "traceback": text,
            }
            for text, (summary, ids) in self._by_traceback.items()
        ]

    def _answer(self, row: Row, error: BaseException) -> Result:
        if isinstance(error, NbserveError):
            return failure(error.status, error.kind, error.client_text)
        shown = request_text(self._id_prefix, row.request_id)
        text = f"the handler failed; the log has the traceback under id {shown}"
        return failure(HandlerFailed.status, HandlerFailed.kind, text)


def _merge(count: int, refused: dict[int, Result], answered: list[Result]) -> Iterator[Result]:
    answers = iter(answered)
    for position in range(count):
        yield refused[position] if position in refused else next(answers)

"""Requests of many rows: each row becomes a ticket, and their answers one answer. Server process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nbserve.errors import NbserveError
from nbserve.server.http.answer import JSON
from nbserve.server.http.exchange import Exchange
from nbserve.server.ticket import Ticket

MAX_ROWS = 65_536


class Rows:
    """Collects the answers to the rows of a request and answers it when all are there, or at the first error.

    Subclasses know what rows are in their protocol.
    """

    def __init__(self, exchange: Exchange, rows: Sequence[bytes], echo: bytes) -> None:
        self.exchange = exchange
        self.echo = echo
        self._rows = rows
        self._results: list[Any] = [None] * len(rows)
        self._missing = len(rows)

    @property
    def is_over(self) -> bool:
        return self.exchange.is_gone

    def tickets(self, request_ids: Iterator[int], meta: bytes) -> Iterator[RowTicket]:
        query, _, lines = meta.split(b"\0", 2)
        for row, body in enumerate(self._rows):
            row_meta = b"\0".join((query, self.content_type_of(row), lines))
            yield RowTicket(next(request_ids), row_meta, body, self, row)

    def resolve(self, row: int, status: int, head: bytes, body: bytes | memoryview) -> None:
        if self.is_over:
            return
        if status >= 400:
            self.fail_row(row, status, head, body)
            return
        try:
            self._results[row] = self.result_of(head, body)
            self._missing -= 1
            if not self._missing:
                self.exchange.answer(200, self.answer_of(self._results), JSON, self.echo)
        except NbserveError as error:
            self.exchange.fail(error, self.echo)

    def content_type_of(self, row: int) -> bytes:
        return JSON

    def fail_row(self, row: int, status: int, head: bytes, body: bytes | memoryview) -> None:
        """Answer with the error of a row."""
        self.exchange.answer(status, bytes(body), head.partition(b"\0")[0] or JSON, self.echo)

    def result_of(self, head: bytes, body: bytes | memoryview) -> Any:
        """What a row's answer is; raises HandlerFailed for what the protocol cannot carry."""
        raise NotImplementedError

    def answer_of(self, results: list[Any]) -> bytes:
        """The body of the whole answer; raises an error of our tree for what cannot be put together."""
        raise NotImplementedError


class RowTicket(Ticket):
    """One row of a request."""

    __slots__ = ("_row", "_rows")

    def __init__(self, request_id: int, meta: bytes, body: bytes, rows: Rows, row: int) -> None:
        super().__init__(request_id, meta, body, rows.exchange.received_ns, rows.exchange.connection)
        self._rows = rows
        self._row = row

    def resolve(self, status: int, head: bytes, body: bytes | memoryview) -> None:
        self._rows.resolve(self._row, status, head, body)

    def is_gone(self) -> bool:
        return self._rows.is_over

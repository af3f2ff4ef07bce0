"""The bytes of HTTP answers. Pure; runs in the server process."""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus

import orjson

from nbserve.errors import HttpError, NbserveError, Overloaded

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE_LINE = b"Connection: close\r\n"
JSON = b"application/json"

BODYLESS = frozenset((204, 304))
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
_MAX_KNOWN = 1024


class AnswerHeads:
    """Makes answer heads. Answers are much alike, so heads are kept in `known` until the date changes."""

    def __init__(self, unix_s: float) -> None:
        self.known: dict[tuple[int, bytes, int, bytes], bytes] = {}
        self._date = b""
        self.set_date(unix_s)

    def set_date(self, unix_s: float) -> None:
        date = formatdate(unix_s, usegmt=True).encode()
        if date != self._date:
            self._date = date
            self.known.clear()

    def make(self, status: int, content_type: bytes, length: int, lines: bytes) -> bytes:
        """Everything before the body; `lines` are further header lines, each with its CRLF."""
        kind = b"Content-Type: %b\r\n" % content_type if content_type else b""
        if status not in BODYLESS:
            kind += b"Content-Length: %d\r\n" % length
        reason = _REASONS.get(status, b"Unknown")
        head = b"HTTP/1.1 %d %b\r\nDate: %b\r\n%b%b\r\n" % (status, reason, self._date, kind, lines)
        if len(self.known) >= _MAX_KNOWN:
            self.known.clear()
        self.known[status, content_type, length, lines] = head
        return head


def error_body(error: NbserveError) -> bytes:
    """What a client reads of an error."""
    return orjson.dumps({"code": error.status, "type": error.kind, "message": error.client_text})


def error_lines(error: NbserveError) -> bytes:
    """The header lines that belong to an error."""
    if isinstance(error, Overloaded):
        return b"Retry-After: %d\r\n" % error.retry_after_s
    return error.headers if isinstance(error, HttpError) else b""

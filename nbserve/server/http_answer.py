"""The bytes of HTTP answers. Pure; runs in the server process."""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus

import orjson

from nbserve.errors import HttpError, NbserveError, Overloaded

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE_LINE = b"Connection: close\r\n"
JSON = b"application/json"

_BODYLESS = (204, 304)
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
_MAX_PREFIXES = 256


class AnswerHeads:
    """Makes answer heads; what stays the same from answer to answer is kept until the date changes."""

    def __init__(self, unix_s: float) -> None:
        self._prefixes: dict[tuple[int, bytes], bytes] = {}
        self._date = b""
        self.set_date(unix_s)

    def set_date(self, unix_s: float) -> None:
        date = formatdate(unix_s, usegmt=True).encode()
        if date != self._date:
            self._date = date
            self._prefixes.clear()

    def head(self, status: int, content_type: bytes, length: int, lines: bytes) -> bytes:
        """Everything before the body; `lines` are further header lines, each with its CRLF."""
        prefix = self._prefixes.get((status, content_type)) or self._prefix(status, content_type)
        if status in _BODYLESS:
            return b"%b%b\r\n" % (prefix, lines)
        return b"%bContent-Length: %d\r\n%b\r\n" % (prefix, length, lines)

    def _prefix(self, status: int, content_type: bytes) -> bytes:
        if len(self._prefixes) >= _MAX_PREFIXES:
            self._prefixes.clear()
        start = b"HTTP/1.1 %d %b\r\nDate: %b\r\n" % (status, _REASONS.get(status, b"Unknown"), self._date)
        kind = b"Content-Type: %b\r\n" % content_type if content_type and status not in _BODYLESS else b""
        return self._prefixes.setdefault((status, content_type), start + kind)


def has_body(status: int, method: bytes) -> bool:
    return method != b"HEAD" and status not in _BODYLESS


def error_body(error: NbserveError) -> bytes:
    """What a client reads of an error."""
    return orjson.dumps({"code": error.status, "type": error.kind, "message": error.client_text})


def error_lines(error: NbserveError) -> bytes:
    """The header lines that belong to an error."""
    if isinstance(error, Overloaded):
        return b"Retry-After: %d\r\n" % error.retry_after_s
    return error.headers if isinstance(error, HttpError) else b""

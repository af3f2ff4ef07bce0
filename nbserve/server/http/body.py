"""Request bodies that did not arrive together with their head, piece by piece. Pure; runs in the server process."""

from __future__ import annotations

import re

from nbserve.errors import HttpError
from nbserve.server.http.head import CHUNKED, Head, body_too_large

_SMALL_PIECE = 4096
_MAX_LINE = 1024
_MAX_TRAILERS = 8192

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SIZE_LINE = re.compile(rb'([0-9A-Fa-f]{1,15})(?:;%b(?:=(?:%b|"[ !#-\[\]-~]*"))?)*' % (_TOKEN, _TOKEN))
_TRAILER_LINE = re.compile(rb"%b:[\t -~\x80-\xff]*" % _TOKEN)


class Pieces:
    """What has arrived of a body. Small pieces are merged, so that a trickle cannot cost more than its bytes."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: list[bytes | bytearray] = []

    def add(self, piece: bytes) -> None:
        pieces = self._pieces
        if len(piece) >= _SMALL_PIECE:
            pieces.append(piece)
        elif pieces and type(pieces[-1]) is bytearray:
            pieces[-1] += piece
        else:
            pieces.append(bytearray(piece))

    def join(self) -> bytes:
        return b"".join(self._pieces)


class SizedBody:
    """A body of known length."""

    __slots__ = ("_missing", "_pieces")

    def __init__(self, length: int) -> None:
        self._missing = length
        self._pieces = Pieces()

    def feed(self, data: bytes, at: int) -> int:
        """Take what belongs to the body from `data[at:]`; where it ended, or -1 when more must come."""
        end = at + self._missing
        piece = data[at:end] if at or end < len(data) else data
        self._pieces.add(piece)
        self._missing -= len(piece)
        return -1 if self._missing else end

    def join(self) -> bytes:
        return self._pieces.join()


class ChunkedBody:
    """A body in chunks: size line, data, empty line, and after the last chunk the trailers, which are dropped.

    Lines are read strictly (hexadecimal digits, CRLF): what is read differently by a proxy is a smuggled request.
    """

    __slots__ = ("_at_data_end", "_at_trailers", "_is_complete", "_line", "_missing", "_pieces", "_room", "_trailers")

    def __init__(self, max_bytes: int) -> None:
        self._room = max_bytes
        self._pieces = Pieces()
        self._line = b""
        self._missing = 0
        self._at_data_end = False
        self._at_trailers = False
        self._trailers = 0
        self._is_complete = False

    def feed(self, data: bytes, at: int) -> int:
        """Take what belongs to the body from `data[at:]`; where it ended, or -1 when more must come."""
        while at < len(data):
            at = self._feed_data(data, at) if self._missing else self._feed_line(data, at)
            if self._is_complete:
                return at
        return -1

    def join(self) -> bytes:
        return self._pieces.join()

    def _feed_data(self, data: bytes, at: int) -> int:
        piece = data[at : at + self._missing]
        self._pieces.add(piece)
        self._missing -= len(piece)
        self._at_data_end = not self._missing
        return at + len(piece)

    def _feed_line(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at) + 1
        line = self._line + data[at : end or len(data)]
        if len(line) > _MAX_LINE:
            raise HttpError(400, f"a line between chunks is longer than {_MAX_LINE} bytes")
        if not end:
            self._line = line
            return len(data)
        self._line = b""
        if not line.endswith(b"\r\n"):
            raise HttpError(400, "a line between chunks does not end in CRLF")
        self._take_line(line[:-2])
        return end

    def _take_line(self, line: bytes) -> None:
        if self._at_trailers:
            self._take_trailer(line)
        elif self._at_data_end:
            if line:
                raise HttpError(400, "a chunk is longer than its size")
            self._at_data_end = False
        else:
            self._take_size(line)

    def _take_size(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise HttpError(400, "a chunk has no valid size")
        size = int(match[1], 16)
        self._room -= size
        if self._room < 0:
            raise body_too_large()
        self._missing = size
        self._at_trailers = not size

    def _take_trailer(self, line: bytes) -> None:
        self._trailers += len(line)
        if self._trailers > _MAX_TRAILERS:
            raise HttpError(431, f"the trailers are longer than {_MAX_TRAILERS} bytes")
        if line and not _TRAILER_LINE.fullmatch(line):
            raise HttpError(400, "a trailer is no valid header")
        self._is_complete = not line


def body_of(head: Head, max_bytes: int) -> SizedBody | ChunkedBody:
    """What reads the body that `head` announces."""
    return ChunkedBody(max_bytes) if head.body_length == CHUNKED else SizedBody(head.body_length)

"""Frames between server and worker: pure encode and decode, no I/O. Used by both processes.

A frame is a header and a payload; integers are little-endian, tables are columns so that `array` packs them in C.

    header   u8 kind, u8 flags (0), u16 reserved (0), u32 row count, u64 payload length
    BATCH    u64 batch id, u64[n] request ids, u32[n] meta lengths, u32[n] body lengths, then each row's meta and body
             meta = query NUL content type NUL remaining headers as "name:value" lines, all latin-1
    RESULTS  u64 batch id, u64[5] CLOCK_MONOTONIC ns (taken, preprocessed, inferred, postprocessed, encoded),
             u16[n] statuses, u32[n] head lengths, u32[n] body lengths, then each row's head and body
             head = content type, then NUL and "name:value" lines when there are more headers; empty means JSON
    EVENT    a JSON object with the key "event" (worker to server); no rows
    CONTROL  a JSON object with the key "op" (server to worker); no rows

The flags byte is where answers in parts will be announced; a decoder refuses flags it does not know.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import orjson

BATCH, RESULTS, EVENT, CONTROL = 1, 2, 3, 4

_HEADER = struct.Struct("<BBHIQ")
_STAMPS = struct.Struct("<6Q")
# What a NamedTuple's own constructor does in three times the time; here it counts, once for each row.
_new = tuple.__new__
HEADER_BYTES = _HEADER.size
MAX_PAYLOAD_BYTES = 1 << 36

if sys.byteorder != "little" or array("I").itemsize != 4 or array("Q").itemsize != 8:
    raise ImportError("nbserve's wire format needs a little-endian machine with 4-byte ints")


class WireError(Exception):
    """The other side sent bytes that are no frame; the channel cannot be used any more."""


class Row(NamedTuple):
    """One request as the worker gets it. `body` is a view into the frame: copy what outlives the batch."""

    request_id: int
    meta: bytes
    body: memoryview


class Batch(NamedTuple):
    batch_id: int
    rows: list[Row]


class Result(NamedTuple):
    """One answer: HTTP status, head (content type and further headers, empty for plain JSON) and body."""

    status: int
    head: bytes
    body: bytes | memoryview


class Stamps(NamedTuple):
    """CLOCK_MONOTONIC nanoseconds in the worker, each the end of the step it is named after."""

    taken_ns: int = 0
    preprocessed_ns: int = 0
    inferred_ns: int = 0
    postprocessed_ns: int = 0
    encoded_ns: int = 0


class Results(NamedTuple):
    batch_id: int
    stamps: Stamps
    rows: list[Result]


def encode_batch(batch_id: int, rows: Sequence[tuple[int, bytes, bytes | memoryview]]) -> list[bytes | memoryview]:
    """The buffers of a BATCH frame, in order; rows are (request id, meta, body)."""
    ids, metas, bodies = zip(*rows, strict=True)
    table = (batch_id.to_bytes(8, "little"), array("Q", ids))
    return _with_header(BATCH, table, metas, bodies)


def encode_results(batch_id: int, stamps: Stamps, rows: Sequence[Result]) -> list[bytes | memoryview]:
    """The buffers of a RESULTS frame, in order."""
    statuses, heads, bodies = zip(*rows, strict=True)
    table = (_STAMPS.pack(batch_id, *stamps), array("H", statuses))
    return _with_header(RESULTS, table, heads, bodies)


def encode_message(kind: int, message: dict[str, Any]) -> bytes:
    """A whole EVENT or CONTROL frame."""
    payload = orjson.dumps(message, default=str)
    return _HEADER.pack(kind, 0, 0, 0, len(payload)) + payload


def encode_header(kind: int, count: int, length: int) -> bytes:
    """The header of a frame with `count` rows and a payload of `length` bytes."""
    return _HEADER.pack(kind, 0, 0, count, length)


def decode_header(header: bytes | bytearray | memoryview) -> tuple[int, int, int]:
    """(kind, row count, payload length) of a frame; raises WireError for what is no header."""
    kind, flags, reserved, count, length = _HEADER.unpack_from(header)
    if not BATCH <= kind <= CONTROL or flags or reserved or length > MAX_PAYLOAD_BYTES:
        raise WireError(f"no frame starts with {bytes(header[:HEADER_BYTES])!r}")
    return kind, count, length


def decode_batch(count: int, payload: memoryview) -> Batch:
    """The rows of a BATCH payload, as views into it."""
    lengths_at = 8 + 8 * count
    rows_at = lengths_at + 8 * count
    _check(len(payload) >= rows_at, payload)
    ids = array("Q", payload[8:lengths_at].tobytes())
    lengths = array("I", payload[lengths_at:rows_at].tobytes())
    rows = []
    for request_id, (meta, body) in zip(ids, _slices(payload, rows_at, lengths, count), strict=True):
        rows.append(_new(Row, (request_id, meta, body)))
    return Batch(int.from_bytes(payload[:8], "little"), rows)


def decode_results(count: int, payload: memoryview) -> Results:
    """The rows of a RESULTS payload; bodies are views into it."""
    lengths_at = _STAMPS.size + 2 * count
    rows_at = lengths_at + 8 * count
    _check(len(payload) >= rows_at, payload)
    batch_id, *stamps = _STAMPS.unpack_from(payload)
    statuses = array("H", payload[_STAMPS.size : lengths_at].tobytes())
    lengths = array("I", payload[lengths_at:rows_at].tobytes())
    rows = []
    for status, (head, body) in zip(statuses, _slices(payload, rows_at, lengths, count), strict=True):
        rows.append(_new(Result, (status, head, body)))
    return Results(batch_id, Stamps(*stamps), rows)


def decode_message(payload: memoryview | bytes) -> dict[str, Any]:
    """The JSON object of an EVENT or CONTROL payload."""
    try:
        message = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise WireError(f"a message is not JSON: {error}") from None
    if not isinstance(message, dict):
        raise WireError(f"a message is an object, not {type(message).__name__}")
    return message


class FrameReader:
    """Cuts a byte stream into frames. Feed it what arrived; it gives back whole frames as (kind, count, payload)."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, int, memoryview]]:
        if self._pending:
            self._pending += data
            if not self._holds_frame():
                return
            data = bytes(self._pending)
            self._pending.clear()
        view, at = memoryview(data), 0
        while len(view) - at >= HEADER_BYTES:
            kind, count, length = decode_header(view[at : at + HEADER_BYTES])
            end = at + HEADER_BYTES + length
            if end > len(view):
                break
            yield kind, count, view[at + HEADER_BYTES : end]
            at = end
        self._pending += view[at:]

    def _holds_frame(self) -> bool:
        if len(self._pending) < HEADER_BYTES:
            return False
        return len(self._pending) >= HEADER_BYTES + decode_header(self._pending)[2]


def _with_header(
    kind: int,
    columns: tuple[bytes | array[int], ...],
    heads: tuple[bytes, ...],
    bodies: tuple[bytes | memoryview, ...],
) -> list[bytes | memoryview]:
    head_lengths, body_lengths = array("I", map(len, heads)), array("I", map(len, bodies))
    table = b"".join((*columns, head_lengths, body_lengths))
    header = _HEADER.pack(kind, 0, 0, len(heads), len(table) + sum(head_lengths) + sum(body_lengths))
    buffers: list[bytes | memoryview] = [header + table] * (1 + 2 * len(heads))
    buffers[1::2] = heads
    buffers[2::2] = bodies
    return buffers


def _slices(payload: memoryview, at: int, lengths: array[int], count: int) -> Iterator[tuple[bytes, memoryview]]:
    _check(at + sum(lengths) == len(payload), payload)
    for head_length, body_length in zip(lengths[:count], lengths[count:], strict=True):
        body_at = at + head_length
        end = body_at + body_length
        yield payload[at:body_at].tobytes() if head_length else b"", payload[body_at:end]
        at = end


def _check(holds: bool, payload: memoryview) -> None:
    if not holds:
        raise WireError(f"a frame's lengths do not add up to its {len(payload)} bytes")

"""Frames: what goes in comes out, however the stream is cut; what is no frame is refused."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbserve import wire

U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
BYTES = st.binary(max_size=40)
BATCH_ROWS = st.lists(st.tuples(U64, BYTES, BYTES), min_size=1, max_size=8)
RESULT_ROWS = st.lists(st.tuples(U16, BYTES, BYTES), min_size=1, max_size=8)
STAMPS = st.tuples(U64, U64, U64, U64, U64)
MESSAGES = st.dictionaries(st.text(max_size=5), st.integers(-(2**53), 2**53) | st.text(max_size=5), max_size=4)


def batch_frame(*bodies: bytes) -> bytes:
    return b"".join(wire.encode_batch(7, [(index, b"meta", body) for index, body in enumerate(bodies)]))


def payload_of(frame: bytes) -> tuple[int, int, memoryview]:
    kind, count, length = wire.decode_header(frame)
    payload = memoryview(frame)[wire.HEADER_BYTES :]
    assert len(payload) == length
    return kind, count, payload


@given(U64, BATCH_ROWS)
def test_a_batch_survives_the_way(batch_id: int, rows: list[tuple[int, bytes, bytes]]) -> None:
    kind, count, payload = payload_of(b"".join(wire.encode_batch(batch_id, rows)))
    batch = wire.decode_batch(count, payload)
    assert kind == wire.BATCH
    assert batch == (batch_id, rows)
    assert all(isinstance(row, wire.Row) and isinstance(row.meta, bytes) for row in batch.rows)


@given(U64, STAMPS, RESULT_ROWS)
def test_results_survive_the_way(batch_id: int, stamps: tuple[int, ...], rows: list[tuple[int, bytes, bytes]]) -> None:
    buffers = wire.encode_results(batch_id, wire.Stamps(*stamps), [wire.Result(*row) for row in rows])
    kind, count, payload = payload_of(b"".join(buffers))
    assert kind == wire.RESULTS
    assert wire.decode_results(count, payload) == (batch_id, stamps, rows)


@given(st.sampled_from([wire.EVENT, wire.CONTROL]), MESSAGES)
def test_a_message_survives_the_way(kind: int, message: dict[str, Any]) -> None:
    found_kind, count, payload = payload_of(wire.encode_message(kind, message))
    assert (found_kind, count) == (kind, 0)
    assert wire.decode_message(payload) == message


@given(st.lists(BATCH_ROWS, max_size=4), st.data())
def test_frames_come_out_however_the_stream_is_cut(batches: list[list[Any]], data: st.DataObject) -> None:
    stream = b"".join(b"".join(wire.encode_batch(index, rows)) for index, rows in enumerate(batches))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    reader, found = wire.FrameReader(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += [wire.decode_batch(count, payload) for _, count, payload in reader.feed(stream[start:end])]
    assert found == list(enumerate(batches))


def test_bodies_are_views_and_not_copies() -> None:
    frame = bytearray(batch_frame(b"first", b"second"))
    _, count, payload = payload_of(frame)  # type: ignore[arg-type]
    batch = wire.decode_batch(count, payload)
    frame[-1:] = b"D"
    assert bytes(batch.rows[1].body) == b"seconD"


def test_a_body_may_be_a_view_when_it_is_sent() -> None:
    frame = b"".join(wire.encode_batch(1, [(1, b"", memoryview(b"abc")[1:])]))
    _, count, payload = payload_of(frame)
    assert bytes(wire.decode_batch(count, payload).rows[0].body) == b"bc"


@pytest.mark.parametrize(
    "header",
    [
        struct.pack("<BBHIQ", 0, 0, 0, 1, 8),
        struct.pack("<BBHIQ", 5, 0, 0, 1, 8),
        struct.pack("<BBHIQ", 1, 1, 0, 1, 8),
        struct.pack("<BBHIQ", 1, 0, 1, 1, 8),
        struct.pack("<BBHIQ", 1, 0, 0, 1, wire.MAX_PAYLOAD_BYTES + 1),
    ],
    ids=["no kind", "unknown kind", "unknown flags", "reserved bytes", "too long"],
)
def test_what_is_no_header_is_refused(header: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.decode_header(header)
    with pytest.raises(wire.WireError):
        list(wire.FrameReader().feed(header))


@pytest.mark.parametrize("count", [0, 1, 3, 2**32 - 1])
def test_a_wrong_row_count_is_refused(count: int) -> None:
    _, _, payload = payload_of(batch_frame(b"a", b"b"))
    with pytest.raises(wire.WireError, match="do not add up"):
        wire.decode_batch(count, payload)


@given(st.binary(max_size=200), st.integers(0, 6))
def test_noise_is_refused_or_read_but_never_anything_else(noise: bytes, count: int) -> None:
    for decode in (wire.decode_batch, wire.decode_results):
        try:
            rows = decode(count, memoryview(noise)).rows
        except wire.WireError:
            continue
        assert len(rows) == count


@given(st.data())
def test_a_frame_cut_short_is_refused(data: st.DataObject) -> None:
    _, count, payload = payload_of(batch_frame(b"first", b"second"))
    end = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(wire.WireError):
        wire.decode_batch(count, payload[:end])


@pytest.mark.parametrize("payload", [b"[1]", b"1", b"{", b""])
def test_a_message_must_be_an_object(payload: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.decode_message(payload)

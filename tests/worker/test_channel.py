"""The worker's end of its socket, against a peer that cuts the stream as it likes."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator

import pytest

from nbserve import wire
from nbserve.worker import channel as channel_module
from nbserve.worker.channel import Channel


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(10)
        yield Channel(ours), theirs


def frame(*bodies: bytes) -> bytes:
    return b"".join(wire.encode_batch(1, [(0, b"", body) for body in bodies]))


def bodies_in(received: tuple[int, int, memoryview] | None) -> list[bytes]:
    assert received is not None
    kind, count, payload = received
    assert kind == wire.BATCH
    return [bytes(row.body) for row in wire.decode_batch(count, payload).rows]


def test_frames_of_all_sizes_come_in_order_however_they_are_cut(ends: tuple[Channel, socket.socket]) -> None:
    channel, peer = ends
    dice = random.Random(7)
    sizes = [dice.choice([0, 5, 70_000, 260_000, 1_000_000]) for _ in range(40)]
    stream = b"".join(frame(bytes([index]) * size, b"end") for index, size in enumerate(sizes))

    def send() -> None:
        at = 0
        while at < len(stream):
            step = dice.choice([1, 15, 17, 4096, 300_000])
            peer.sendall(stream[at : at + step])
            at += step
        peer.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    for index, size in enumerate(sizes):
        assert bodies_in(channel.receive()) == [bytes([index]) * size, b"end"]
    assert channel.receive() is None
    sender.join()


def test_a_peer_that_hangs_up_in_a_frame_ends_the_stream(ends: tuple[Channel, socket.socket]) -> None:
    channel, peer = ends
    peer.sendall(frame(b"whole") + frame(b"cut off")[:-1])
    peer.close()
    assert bodies_in(channel.receive()) == [b"whole"]
    assert channel.receive() is None


def test_memory_of_a_huge_frame_is_given_back(
    ends: tuple[Channel, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "KEPT_ARENA_BYTES", 1 << 20)
    channel, peer = ends
    for body in (b"x" * 3_000_000, b"small"):
        sender = threading.Thread(target=peer.sendall, args=[frame(body)])
        sender.start()
        assert bodies_in(channel.receive()) == [body]
        sender.join()
    assert len(channel._arena) <= 1 << 20


def test_a_large_answer_arrives_whole_while_the_peer_reads_slowly(ends: tuple[Channel, socket.socket]) -> None:
    channel, peer = ends
    bodies = [bytes([index % 256]) * (index * 37 % 5000) for index in range(1500)]
    rows = [wire.Result(200, b"", memoryview(body)) for body in bodies]
    sender = threading.Thread(target=channel.send, args=[wire.encode_results(9, wire.Stamps(), rows)])
    sender.start()
    reader, found = wire.FrameReader(), []
    while not found:
        found = [wire.decode_results(count, payload) for _, count, payload in reader.feed(peer.recv(30_000))]
    sender.join()
    assert [bytes(row.body) for row in found[0].rows] == bodies


def test_quiet_means_nothing_came(ends: tuple[Channel, socket.socket]) -> None:
    channel, peer = ends
    assert channel.is_quiet_for(0.01)
    peer.sendall(frame(b"1") + frame(b"2"))
    assert not channel.is_quiet_for(10)
    channel.receive()
    # The second frame was read along with the first and waits in the arena.
    assert not channel.is_quiet_for(0)

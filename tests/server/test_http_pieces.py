"""However a byte stream is cut into reads, the requests and answers are the same; chunks are read as httptools does."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nbserve.config import ServerConfig
from nbserve.errors import HttpError
from nbserve.server.http.body import ChunkedBody
from nbserve.server.http.connection import Connection
from nbserve.server.http.head import Head, HeadParser
from nbserve.server.http.server import Exchange, HttpServer

CONFIG = ServerConfig(max_pipelined=2, max_header_bytes=300, max_body_bytes=200)


class FakeTransport(asyncio.Transport):
    """Keeps what is written; nothing is ever stuck."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self._is_closing = False

    def write(self, data: Any) -> None:
        assert not self._is_closing, "a write after closing"
        self.sent += data

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True

    def write_eof(self) -> None:
        self._is_closing = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class FakeLoop:
    """Runs what is called soon when told to."""

    def __init__(self) -> None:
        self._soon: list[Any] = []

    def time(self) -> float:
        return 0.0

    def call_soon(self, callback: Any) -> None:
        self._soon.append(callback)

    def run(self) -> None:
        while self._soon:
            self._soon.pop(0)()


class Recorder:
    """Answers with what it was asked; what is on hold it answers later, the newest first."""

    def __init__(self) -> None:
        self._held: list[Exchange] = []

    def check(self, exchange: Exchange) -> None: ...

    def left(self, connection: int) -> None: ...

    def dispatch(self, exchange: Exchange) -> None:
        if exchange.path.startswith(b"/hold"):
            self._held.append(exchange)
        else:
            self._answer(exchange)

    def release(self) -> bool:
        if self._held:
            self._answer(self._held.pop())
            return True
        return False

    def _answer(self, exchange: Exchange) -> None:
        exchange.answer(200, b"|".join((exchange.method, exchange.target, exchange.content_type, exchange.body)))


def serve(pieces: list[bytes]) -> bytes:
    """All that a connection sends when it receives `pieces`; the date is left out."""
    loop, routes, transport = FakeLoop(), Recorder(), FakeTransport()
    server = HttpServer(routes, CONFIG, loop)  # type: ignore[arg-type]
    server.answer_heads._date = b"today"
    connection = Connection(server, 1)
    connection.connection_made(transport)
    for piece in pieces:
        connection.data_received(piece)
        loop.run()
    while routes.release():
        loop.run()
    return transport.sent.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    return [stream[start:end] for start, end in itertools.pairwise(at)]


bodies = st.binary(max_size=80)
paths = st.sampled_from([b"/a", b"/b?c=%20d", b"/hold", b"/hold/b"])
headers = st.sampled_from(
    [b"", b"Accept: */*\r\n", b"Content-Type: text/plain\r\nX-A:  b \r\n", b"Expect: 100-continue\r\n"]
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    path, lines, body = draw(paths), draw(headers), draw(bodies)
    start = b"POST %b HTTP/1.1\r\nHost: x\r\n%b" % (path, lines)
    kind = draw(st.sampled_from(["sized", "chunked", "get", "closing", "invalid"]))
    if kind == "sized":
        return b"%bContent-Length: %d\r\n\r\n%b" % (start, len(body), body)
    if kind == "chunked":
        return start + b"Transfer-Encoding: chunked\r\n\r\n" + draw(chunks())
    if kind == "get":
        return b"\r\nGET %b HTTP/1.1\r\nhost: x\r\n\r\n" % path
    if kind == "closing":
        return b"%bConnection: close\r\n\r\n" % start
    return draw(st.sampled_from([b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", start + b"Content-Length: 201\r\n\r\n"]))


@st.composite
def chunks(draw: st.DrawFn) -> bytes:
    pieces = draw(st.lists(st.binary(min_size=1, max_size=30), max_size=4))
    extension = draw(st.sampled_from([b"", b";a=b", b';a="c d"']))
    trailers = draw(st.sampled_from([b"", b"X-Sum: 1\r\n", b"A: b\r\nC:\r\n"]))
    return b"".join(b"%x%b\r\n%b\r\n" % (len(p), extension, p) for p in pieces) + b"0\r\n" + trailers + b"\r\n"


@given(st.lists(requests(), min_size=1, max_size=6).map(b"".join), st.lists(st.integers(0, 600), max_size=12))
@settings(max_examples=200, deadline=None)
def test_any_cut_of_a_stream_gives_the_same_answers(stream: bytes, cuts: list[int]) -> None:
    assert serve(cut(stream, cuts)) == serve([stream])


@given(st.lists(requests(), min_size=1, max_size=3).map(b"".join))
@settings(max_examples=60, deadline=None)
def test_single_bytes_give_the_same_answers(stream: bytes) -> None:
    assert serve([stream[at : at + 1] for at in range(len(stream))]) == serve([stream])


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
@example(b"\r\n", [1])
@example(b"\r", [])
def test_any_bytes_do_no_harm(stream: bytes, cuts: list[int]) -> None:
    serve(cut(stream, cuts))


def test_a_repeated_head_means_the_same_as_when_it_was_parsed() -> None:
    request = b"POST /a?b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
    first, second, third = (part for part in serve([request] * 3).split(b"HTTP/1.1 200 OK")[1:])
    assert first == second == third
    assert b"POST|/a?b||hi" in first


class Oracle:
    """The body of a chunked request as httptools reads it."""

    def __init__(self, data: bytes) -> None:
        self.body = b""
        self.is_complete = False
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + data)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_complete = True


@st.composite
def damaged_chunks(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(chunks()))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data) - 1))
        data[at : at + draw(st.integers(0, 1))] = draw(
            st.sampled_from([b"", b"\r", b"\n", b" ", b"0", b"f", b";", b"\0"])
        )
    return bytes(data)


@given(damaged_chunks(), st.lists(st.integers(0, 60), max_size=4))
@settings(max_examples=500, deadline=None)
def test_chunks_that_are_accepted_are_read_as_httptools_reads_them(data: bytes, cuts: list[int]) -> None:
    """Ours may be stricter (about extensions and trailers), never more lenient, and never different."""
    body, fed = ChunkedBody(10_000), 0
    for piece in cut(data, cuts):
        try:
            end = body.feed(piece, 0)
        except HttpError:
            return
        if end >= 0:
            oracle = Oracle(data[: fed + end])
            assert (oracle.is_complete, oracle.body) == (True, body.join())
            return
        fed += len(piece)


def test_known_heads_stay_few() -> None:
    parser = HeadParser(1000, 1000)
    for number in range(3 * parser.max_known):
        parser.parse(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
    assert len(parser.known) <= parser.max_known


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/a?b?c", b"/a", b"b?c"),
        (b"http://h", b"/", b""),
        (b"HTTPS://h:1?q", b"/", b"q"),
        (b"http://h/a/b?q=/", b"/a/b", b"q=/"),
    ],
)
def test_targets(target: bytes, path: bytes, query: bytes) -> None:
    head = parse(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)
    assert (head.target, head.path, head.query) == (target, path, query)


def test_header_names_are_lower_case_and_values_trimmed() -> None:
    head = parse(b"GET / HTTP/1.1\r\nHOST: x\r\nX-Ab:\t c d \t\r\n\r\n")
    assert head.headers == [(b"host", b"x"), (b"x-ab", b"c d")]


def parse(data: bytes) -> Head:
    return HeadParser(10_000, 10_000).parse(data)


@pytest.fixture(autouse=True)
def no_errors_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert not caplog.records

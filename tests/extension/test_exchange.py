"""One exchange with a server, against one that answers as the test says."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import pytest
from tornado.httputil import HTTPHeaders

from nbserve.errors import ServerGone
from nbserve_extension.exchange import Answer, Question, ask

Found = TypeVar("Found")
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\n"


def with_server(serve: Serve, talk: Callable[[str], Awaitable[Found]]) -> Found:
    """What `talk` makes of the address of a server, which has hung up before this returns."""
    ends: list[asyncio.Future[None]] = []

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.append(asyncio.get_running_loop().create_future())
        with suppress(ConnectionError):
            await serve(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        ends.pop().set_result(None)

    async def run() -> Found:
        server = await asyncio.start_server(served, "127.0.0.1", 0)
        async with server:
            host, port = server.sockets[0].getsockname()
            found = await asyncio.wait_for(talk(f"http://{host}:{port}"), 30)
            await asyncio.wait_for(asyncio.gather(*ends), 30)
            return found

    return asyncio.run(run())


def asked(answer: bytes, read: Callable[[Answer], Awaitable[Found]], method: str = "GET") -> Found:
    """What is read of an answer, from a server that then hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    async def talk(url: str) -> Found:
        async with ask(Question(url, method, "/x")) as given:
            return await read(given)

    return with_server(serve, talk)


async def lines_of(answer: Answer) -> list[bytes]:
    return [line async for line in answer.lines()]


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 11\r\n\r\nhello world",
        OK + b"Transfer-Encoding: chunked\r\n\r\n6;x=1\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n",
        OK + b"\r\nhello world",
    ],
    ids=["length", "chunks", "until closed"],
)
def test_a_body_comes_whole_however_it_is_framed(answer):
    assert asked(answer, Answer.read) == b"hello world"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 20",
        b"what is this\r\n\r\n",
        OK + b"Content-Length: 12\r\n\r\nhello world",
        OK + b"Content-Length: many\r\n\r\nhello world",
        OK + b"Transfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nhello\r\n",
        OK + b"X: " + 200_000 * b"x",
    ],
)
def test_an_answer_that_breaks_off_or_makes_no_sense_is_a_server_that_is_gone(answer):
    with pytest.raises(ServerGone, match="does not answer any more"):
        asked(answer, Answer.read)


def test_nobody_listens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

        async def talk() -> None:
            async with ask(Question(f"http://127.0.0.1:{port}", "GET", "/")):
                raise AssertionError("somebody answered")

        with pytest.raises(ServerGone):
            asyncio.run(talk())


def test_answers_without_a_body_are_not_waited_for():
    assert asked(OK + b"Content-Length: 11\r\n\r\n", Answer.read, "HEAD") == b""
    assert asked(b"HTTP/1.1 204 No Content\r\n\r\n", Answer.read) == b""


def test_lines_are_whole_in_whatever_pieces_they_come():
    assert asked(
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nab\n\r\n2\r\ncd\r\n4\r\ne\n\nf\r\n0\r\n\r\n", lines_of
    ) == [
        b"ab",
        b"cde",
        b"",
        b"f",
    ]


def test_the_question_goes_over_the_wire_as_it_is_put():
    got = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.extend(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(2))
        writer.write(OK + b"\r\n")

    async def talk(url: str) -> str:
        headers = HTTPHeaders({"X-Name": "Gr\u00fc\u00dfe"})
        headers.add("X-Name", "b")
        async with ask(Question(url, "POST", "/a%2Fb?c=+", headers, b"\x00\xff")) as answer:
            await answer.read()
        return url

    url = with_server(serve, talk)
    first, *lines = bytes(got).split(b"\r\n")
    assert first == b"POST /a%2Fb?c=+ HTTP/1.1"
    assert lines[-1] == b"\x00\xff"
    assert set(lines[:-2]) == {
        b"Host: " + url.removeprefix("http://").encode(),
        b"Connection: close",
        b"Content-Length: 2",
        "X-Name: Gr\u00fc\u00dfe".encode("latin-1"),
        b"X-Name: b",
    }


def test_an_answer_that_comes_before_the_question_is_sent_is_heard():
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await writer.drain()
        await reader.read()

    async def talk(url: str) -> tuple[int, bytes]:
        async with ask(Question(url, "POST", "/", body=bytes(50_000_000))) as answer:
            return answer.status, await answer.read()

    assert with_server(serve, talk) == (413, b"big")


def test_who_reads_slowly_holds_the_server_back_and_who_leaves_hangs_up():
    is_held_back, has_hung_up = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"\r\n")
        try:
            # Far more than fits into two sockets.
            for _ in range(100):
                writer.write(bytes(1_000_000))
                await asyncio.wait_for(writer.drain(), 2)
        except asyncio.TimeoutError:
            is_held_back.set()
        with suppress(ConnectionError):
            await reader.read()
        has_hung_up.set()
        writer.transport.abort()

    async def talk(url: str) -> None:
        async with ask(Question(url, "GET", "/")) as answer:
            pieces = answer.pieces()
            assert await anext(pieces)
            await is_held_back.wait()
        await has_hung_up.wait()

    with_server(serve, talk)

"""The panel's messages and what comes back, with an endpoint that is played: no server and no kernel."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Sequence
from typing import Any

import orjson
import pytest

from nbserve.errors import ConfigError, ServerGone
from nbserve.notebook.relay import Relay
from nbserve.verbs import Relayed

WITHIN_S = 10
BEGIN = {"event": "begin", "samples": []}
STATS = {"event": "stats", "endpoint": {}, "sample": {}, "load": None}
GONE = {"event": "gone"}


class Played:
    """An endpoint whose streams say what is put into them; a None ends one."""

    name = "played"

    def __init__(self) -> None:
        self.streams: list[queue.SimpleQueue[Any]] = []
        self.is_opened = threading.Semaphore(0)
        self.asked: list[tuple[str, str, bytes]] = []
        self.answer: Relayed | Exception = Relayed(200, "application/json", b'{"a":1}')

    def stream(self) -> Generator[dict[str, Any], None, None]:
        lines: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.streams.append(lines)
        self.is_opened.release()
        while (line := lines.get(timeout=WITHIN_S)) is not None:
            if isinstance(line, Exception):
                raise line
            yield line

    def relay(self, method: str, path: str, body: bytes) -> Relayed:
        self.asked.append((method, path, body))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def opened(self) -> queue.SimpleQueue[Any]:
        """The stream that was opened last."""
        assert self.is_opened.acquire(timeout=WITHIN_S)
        return self.streams[-1]


class Browser:
    """What it was sent, in order."""

    def __init__(self) -> None:
        self._sent: queue.SimpleQueue[tuple[dict[str, Any], Sequence[bytes]]] = queue.SimpleQueue()

    def send(self, message: dict[str, Any], buffers: Sequence[bytes]) -> None:
        self._sent.put((message, buffers))

    def line(self) -> Any:
        message, _ = self._sent.get(timeout=WITHIN_S)
        assert message["op"] == "line"
        return message["line"]

    def reply(self) -> tuple[dict[str, Any], Sequence[bytes]]:
        message, buffers = self._sent.get(timeout=WITHIN_S)
        assert message["op"] == "reply"
        return message, buffers

    def has_nothing(self) -> bool:
        return self._sent.empty()


@pytest.fixture
def endpoint() -> Played:
    return Played()


@pytest.fixture
def browser() -> Browser:
    return Browser()


@pytest.fixture
def relay(endpoint: Played, browser: Browser) -> Relay:
    return Relay(endpoint, browser.send)  # type: ignore[arg-type]


def wait_for_threads() -> None:
    """Until no thread of a relay runs any more."""
    for thread in threading.enumerate():
        if thread.name == "nbserve-panel-played":
            thread.join(WITHIN_S)
            assert not thread.is_alive()


def test_lines_go_to_the_browser_until_the_endpoint_is_gone(relay: Relay, endpoint: Played, browser: Browser) -> None:
    relay.hear({"op": "follow"})
    stream = endpoint.opened()
    for line in (BEGIN, STATS, GONE):
        stream.put(line)
        assert browser.line() == line
    wait_for_threads()
    assert browser.has_nothing()


@pytest.mark.parametrize("last", [None, ServerGone("broken off")])
def test_a_server_that_ends_without_a_word_is_gone_too(
    relay: Relay, endpoint: Played, browser: Browser, last: Any
) -> None:
    relay.hear({"op": "follow"})
    stream = endpoint.opened()
    stream.put(STATS)
    stream.put(last)
    assert [browser.line(), browser.line()] == [STATS, GONE]
    wait_for_threads()


def test_a_second_view_makes_the_stream_begin_anew_for_all(relay: Relay, endpoint: Played, browser: Browser) -> None:
    relay.hear({"op": "follow", "view": 1})
    first = endpoint.opened()
    first.put(STATS)
    assert browser.line() == STATS
    relay.hear({"op": "follow", "view": 2})
    second = endpoint.opened()
    first.put(STATS)
    second.put(BEGIN)
    assert browser.line() == BEGIN
    relay.hear({"op": "unfollow", "view": 1})
    second.put(STATS)
    assert browser.line() == STATS
    relay.hear({"op": "unfollow", "view": 2})
    second.put(STATS)
    wait_for_threads()
    assert browser.has_nothing()


def test_a_view_that_asks_twice_leaves_once(relay: Relay, endpoint: Played, browser: Browser) -> None:
    for _ in range(2):
        relay.hear({"op": "follow"})
        stream = endpoint.opened()
    endpoint.streams[0].put(None)
    stream.put(BEGIN)
    assert browser.line() == BEGIN
    relay.hear({"op": "unfollow"})
    stream.put(STATS)
    wait_for_threads()
    assert browser.has_nothing()


def test_nothing_is_sent_after_the_end(relay: Relay, endpoint: Played, browser: Browser) -> None:
    relay.hear({"op": "follow"})
    stream = endpoint.opened()
    relay.end()
    stream.put(None)
    wait_for_threads()
    assert browser.has_nothing()


def test_a_call_is_answered_with_json(relay: Relay, endpoint: Played, browser: Browser) -> None:
    relay.hear({"op": "call", "id": 7, "method": "PATCH", "path": "", "body": {"workers": 2}})
    reply, buffers = browser.reply()
    assert reply == {"op": "reply", "id": 7, "status": 200, "content_type": "application/json", "body": {"a": 1}}
    assert not buffers
    [(method, path, body)] = endpoint.asked
    assert (method, path, orjson.loads(body)) == ("PATCH", "", {"workers": 2})


def test_other_bodies_travel_as_they_are(relay: Relay, endpoint: Played, browser: Browser) -> None:
    endpoint.answer = Relayed(200, "application/gzip", b"\x1f\x8b\x00")
    relay.hear({"op": "call", "id": 8, "method": "GET", "path": "/bundle", "body": None})
    reply, buffers = browser.reply()
    assert (reply["content_type"], reply["body"], list(buffers)) == ("application/gzip", None, [b"\x1f\x8b\x00"])
    assert endpoint.asked == [("GET", "/bundle", b"")]


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (ServerGone("the server is gone"), 503, "ServerGone"),
        (ConfigError("no such setting"), 400, "ConfigError"),
        (ValueError("what?"), 500, "InternalError"),
    ],
)
def test_whoever_asks_gets_an_answer(
    relay: Relay, endpoint: Played, browser: Browser, error: Exception, status: int, kind: str
) -> None:
    endpoint.answer = error
    relay.hear({"op": "call", "id": 9, "method": "GET", "path": "/logs", "body": None})
    reply, _ = browser.reply()
    assert (reply["status"], reply["body"]["code"], reply["body"]["type"]) == (status, status, kind)
    assert str(error) in reply["body"]["message"]

"""A real server with its nursery, handlers typed as cells, and steady load for the process tests."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvloop

from nbserve.config import ServerConfig
from nbserve.debugging.link import Link
from nbserve.verbs import Endpoint
from tests.served import wait_until
from tests.server.rawhttp import Running, Start

Reply = tuple[int, Any]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Start HTTP servers without endpoints, on each kind of event loop."""
    servers: list[Running] = []

    def start(**settings: Any) -> Running:
        servers.append(Running(request.param(), ServerConfig().changed(settings)))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def post(url: str, body: Any, path: str = "", timeout_s: float = 60) -> Reply:
    """One request on a connection of its own; gives the status and the decoded JSON answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=timeout_s)
    try:
        connection.request("POST", parts.path + path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def post_all(url: str, bodies: list[Any]) -> list[Reply]:
    """All requests at once, a connection each; answers in the order of the bodies."""
    with ThreadPoolExecutor(max(1, len(bodies))) as pool:
        return list(pool.map(lambda body: post(url, body), bodies))


@pytest.fixture(name="post")
def post_fixture() -> Callable[..., Reply]:
    return post


@pytest.fixture(name="post_all")
def post_all_fixture() -> Callable[..., list[Reply]]:
    return post_all


@dataclass
class Load:
    """Closed-loop clients that go on until told to stop, and count the statuses they saw."""

    url: str
    clients: int = 4
    body: Any = 1
    statuses: Counter[int | str] = field(default_factory=Counter)
    answers: list[Any] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._run) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=30)
        while not self._stop.is_set():
            try:
                connection.request("POST", parts.path, json.dumps(self.body), {"Content-Type": "application/json"})
                response = connection.getresponse()
                self.answers.append(response.read())
                self.statuses[response.status] += 1
            except (OSError, http.client.HTTPException) as error:
                self.statuses[type(error).__name__] += 1
                connection.close()
        connection.close()

    def wait_for(self, more: int, limit_s: float = 30) -> None:
        """Until so many further answers came."""
        goal = self.statuses.total() + more
        wait_until(lambda: self.statuses.total() >= goal, limit_s)


@pytest.fixture
def load() -> type[Load]:
    return Load


class Held:
    """A request in the background, and its answer when there is one."""

    def __init__(self, url: str, body: Any) -> None:
        self._answers: list[Reply] = []
        self._thread = threading.Thread(target=lambda: self._answers.append(post(url, body)))
        self._thread.start()

    @property
    def is_answered(self) -> bool:
        return bool(self._answers)

    def answer(self) -> Reply:
        self._thread.join(60)
        return self._answers[0]


@pytest.fixture
def asked() -> type[Held]:
    return Held


class Debugger:
    """A debugger that says what the test wants said."""

    def __init__(self, socket_path: str, who: str = "the test") -> None:
        self.link = Link(socket_path, who)
        self.hello = self.next("hello")

    def next(self, event: str) -> dict[str, Any]:
        found = self.link.await_event(event, 20)
        assert found is not None, f"the agent never said {event!r}"
        return found

    def prompted(self, text: str) -> None:
        """Answer the next prompt."""
        self.next("prompt")
        self.link.send("reply", text=text)

    def shown(self) -> str:
        """What it was shown since the last call."""
        events = iter(lambda: self.link.receive(0), None)
        return "".join(event["text"] for event in events if event is not None and event["event"] == "out")

    def close(self) -> None:
        self.link.__exit__()


@pytest.fixture
def attach() -> Iterator[Callable[..., Debugger]]:
    """Connect to a worker's agent; closed after the test."""
    debuggers: list[Debugger] = []

    def connect(socket_path: str, who: str = "the test") -> Debugger:
        debuggers.append(Debugger(socket_path, who))
        return debuggers[-1]

    yield connect
    for debugger in debuggers:
        debugger.close()


def ask_debug(endpoint: Endpoint, mode: str, worker: int | None = None) -> Any:
    """What the management API answers a debugger; raises its errors."""
    return endpoint.server.call("POST", f"{endpoint.path}/debug", {"mode": mode, "worker": worker})


@pytest.fixture(name="ask_debug")
def ask_debug_fixture() -> Callable[..., Any]:
    return ask_debug

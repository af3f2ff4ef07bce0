"""A real server whose handlers are typed as cells, requests in the background, and a terminal."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

import nbserve
from nbserve.capture.capture import capture
from nbserve.deployment import Endpoint, Server
from nbserve.errors import PredictError

LIMIT_S = 30.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server.start().ready()
    yield server
    server.stop()


@pytest.fixture
def serve_cell(server: Server, tmp_path: Path) -> Iterator[Callable[..., Endpoint]]:
    """Serve the class `H` of a cell, whose first line is line 2; stopped after the test."""
    served: list[Endpoint] = []
    numbers = itertools.count()

    def serve(text: str, **settings: Any) -> Endpoint:
        name = f"h{next(numbers)}"
        namespace: dict[str, Any] = {"__name__": "__main__", "nbserve": nbserve}
        exec(compile("\n" + text, f"<cell {name}>", "exec"), namespace)
        cell = (f"%%serve {name}\n{text}", "test.ipynb, cell 1")
        store = tmp_path / "store"
        bundle = capture(namespace["H"], name=name, namespace=namespace, settings=settings, cell=cell, store=store)
        served.append(server.deploy(bundle.path, settings))
        return served[-1]

    yield serve
    for endpoint in served:
        endpoint.stop()


class Client:
    """One request in the background."""

    def __init__(self, endpoint: Endpoint, body: Any) -> None:
        self._endpoint = endpoint
        self._body = body
        self._answer: Any = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._answer = self._endpoint.predict(self._body)
        except PredictError as error:
            self._answer = error

    def answer(self) -> Any:
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive(), "the request was never answered"
        return self._answer


@pytest.fixture
def client() -> type[Client]:
    return Client


@pytest.fixture
def wait_until() -> Callable[[Callable[[], Any]], None]:
    """Until a condition holds; fails when it never does."""

    def wait(holds: Callable[[], Any], limit_s: float = LIMIT_S) -> None:
        deadline = time.monotonic() + limit_s
        while not holds():
            assert time.monotonic() < deadline, "the condition never came true"
            time.sleep(0.01)

    return wait


@pytest.fixture
def terminal() -> Iterator[Callable[..., pexpect.spawn]]:
    """`nbserve WORDS...` in a terminal of its own."""
    opened: list[pexpect.spawn] = []

    def run(*words: str) -> pexpect.spawn:
        env = {**os.environ, "TERM": "dumb", "INPUTRC": os.devnull}
        child = pexpect.spawn(
            sys.executable, ["-m", "nbserve", *words], env=env, encoding="utf-8", timeout=LIMIT_S, dimensions=(40, 200)
        )
        opened.append(child)
        return child

    yield run
    for child in opened:
        child.close(force=True)

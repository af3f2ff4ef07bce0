"""A real server whose handlers are typed as cells, and recordings made up by hand."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nbserve
from nbserve.capture.capture import capture
from nbserve.deployment import Endpoint, Server
from nbserve.errors import NbserveError

LIMIT_S = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server.start().ready()
    yield server
    server.stop()


@pytest.fixture
def serve_cell(server: Server, tmp_path: Path) -> Iterator[Callable[..., Endpoint]]:
    """Serve the class `H` of a cell; stopped after the test."""
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


class Clients:
    """Closed-loop clients until the end of the block; what they could not be told is raised there."""

    def __init__(self, endpoint: Endpoint, count: int = 1, body: Any = None) -> None:
        self._endpoint = endpoint
        self._body = body
        self._stop = threading.Event()
        self._errors: list[NbserveError] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self._errors

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._endpoint.predict(self._body)
            except NbserveError as error:
                self._errors.append(error)
                return


@pytest.fixture
def clients() -> type[Clients]:
    return Clients


@pytest.fixture
def wait_until() -> Callable[[Callable[[], Any]], None]:
    """Until a condition holds; fails when it never does."""

    def wait(holds: Callable[[], Any], limit_s: float = LIMIT_S) -> None:
        deadline = time.monotonic() + limit_s
        while not holds():
            assert time.monotonic() < deadline, "the condition never came true"
            time.sleep(0.01)

    return wait

"""Fixtures of the process tests: a real server whose handlers are typed as cells, and waiting for what must come."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nbserve
from nbserve.bundle.bundle import Bundle
from nbserve.capture.capture import capture
from nbserve.deployment import Server
from nbserve.verbs import Endpoint

LIMIT_S = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server.start().ready()
    yield server
    server.stop()


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Bundle]:
    """Capture the class `H` of a cell's text; its `%%serve` line is put before it, so that it begins in line 2."""

    def make(text: str, name: str = "h", **settings: Any) -> Bundle:
        cell = f"%%serve {name}\n{text}"
        namespace: dict[str, Any] = {"__name__": "__main__", "nbserve": nbserve}
        exec(compile("\n" + text, f"<cell {name}>", "exec"), namespace)
        return capture(
            namespace["H"],
            name=name,
            namespace=namespace,
            settings=settings,
            cell=(cell, "test.ipynb, cell 1"),
            store=tmp_path / "store",
        )

    return make


@pytest.fixture
def serve_cell(server: Server, make_bundle: Callable[..., Bundle]) -> Iterator[Callable[..., Endpoint]]:
    """Serve the class `H` of a cell on the module's server; stopped after the test."""
    served: dict[str, Endpoint] = {}
    numbers = itertools.count()

    def serve(text: str, name: str | None = None, **settings: Any) -> Endpoint:
        name = name or f"h{next(numbers)}"
        served[name] = server.deploy(make_bundle(text, name, **settings).path, settings)
        return served[name]

    yield serve
    for endpoint in served.values():
        endpoint.stop()


def wait_until(holds: Callable[[], Any], limit_s: float = LIMIT_S) -> None:
    """Until a condition holds; fails when it never does."""
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.01)


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[..., None]:
    return wait_until

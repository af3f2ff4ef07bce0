"""A real server whose handlers are typed as cells, and recordings made up by hand."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from nbserve.errors import NbserveError
from nbserve.verbs import Endpoint

LIMIT_S = 60.0


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

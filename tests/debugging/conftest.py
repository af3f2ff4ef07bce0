"""A real server whose handlers are typed as cells, requests in the background, and a terminal."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pexpect
import pytest

from nbserve.errors import PredictError
from nbserve.verbs import Endpoint

LIMIT_S = 30.0


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

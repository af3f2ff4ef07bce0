"""The page of a profile through Jupyter: when it is made, what is said when it is not, and how it is called off."""

from __future__ import annotations

import json
import re
from pathlib import Path

import psutil
import pytest

from nbserve.deployment import Endpoint
from nbserve.errors import BadRequest
from nbserve_extension.profile import options_of

from .conftest import JSON, Jupyter, running_server
from .test_predictions import half_asked

API = "nbserve/api/endpoints"
ECHO = """
class H(nbserve.Handler):
    def handle(self, requests, context):
        return requests
"""


def test_options_become_words_of_the_command_line() -> None:
    assert options_of({"seconds": 2.5, "batches": None, "load": 10}) == ["--seconds=2.5", "--load=10"]


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        ({"seconds": "2"}, "'seconds' is '2'; it takes a number"),
        ({"batches": True}, "'batches' is True; it takes a number"),
        ({"worker": 1}, "'worker' is unknown here; there are: batches, load, seconds"),
    ],
)
def test_other_options_are_refused(wish: dict[str, object], text: str) -> None:
    with pytest.raises(BadRequest, match=re.escape(text)):
        options_of(wish)


def of_jupyter(jupyter: Jupyter) -> list[psutil.Process]:
    return psutil.Process(jupyter.pid).children(recursive=True)


def is_recording(endpoint: Endpoint) -> bool:
    return any(worker["profiling"] for worker in endpoint.stats()["workers"])


@pytest.mark.process
def test_the_page_is_that_of_the_command(jupyter: Jupyter, serve_cell) -> None:
    endpoint = serve_cell(ECHO)
    endpoint.predict([1, 2])
    path = f"{API}/{endpoint.name}/profile?server={endpoint.server.server_id}"
    answer = jupyter.ask("POST", path, b'{"seconds": 1}', JSON)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=UTF-8"), answer.body
    assert answer.body.startswith(b"<!doctype html>")
    assert endpoint.name.encode() in answer.body
    assert of_jupyter(jupyter) == []


@pytest.mark.process
@pytest.mark.parametrize(
    ("wish", "text"),
    [
        ({"seconds": -1}, "--seconds is -1.0; it takes more than 0"),
        ({"batches": 1.5}, "argument --batches: takes a whole number, not '1.5'"),
    ],
)
def test_why_there_is_none(jupyter: Jupyter, serve_cell, wish: dict[str, float], text: str) -> None:
    answer = jupyter.ask("POST", f"{API}/{serve_cell(ECHO).name}/profile", json.dumps(wish).encode(), JSON)
    assert answer.status == 400
    assert json.loads(answer.body) == {"code": 400, "type": "ProfileError", "message": text}


@pytest.mark.process
def test_nothing_was_recorded_to_be_sent(jupyter: Jupyter, serve_cell) -> None:
    answer = jupyter.ask("POST", f"{API}/{serve_cell(ECHO).name}/profile", b'{"seconds": 2}', JSON)
    assert (answer.status, json.loads(answer.body)["type"]) == (400, "ProfileError")


@pytest.mark.process
def test_who_hangs_up_ends_the_recording(jupyter: Jupyter, serve_cell, wait_until) -> None:
    endpoint = serve_cell(ECHO)
    endpoint.predict([1, 2])
    with half_asked(jupyter, f"{API}/{endpoint.name}/profile", b'{"seconds": 600}'):
        wait_until(lambda: is_recording(endpoint))
    wait_until(lambda: not is_recording(endpoint))
    wait_until(lambda: of_jupyter(jupyter) == [])


@pytest.mark.process
def test_the_end_of_jupyter_ends_the_recording(serve_cell, wait_until, tmp_path: Path) -> None:
    endpoint = serve_cell(ECHO)
    endpoint.predict([1, 2])
    with (
        running_server(tmp_path, "/", {}) as jupyter,
        half_asked(jupyter, f"{API}/{endpoint.name}/profile", b'{"seconds": 600}'),
    ):
        wait_until(lambda: is_recording(endpoint))
    # By now Jupyter's server has ended.
    wait_until(lambda: not is_recording(endpoint))

"""A bundle started from Jupyter: on a server of its own, which outlives Jupyter."""

from __future__ import annotations

import json
import re
from pathlib import Path

import psutil
import pytest

from nbserve.deployment import Server
from nbserve.errors import BadRequest
from nbserve_extension.starting import Order

from .conftest import JSON, Jupyter, running_server

API = "nbserve/api/endpoints"
ECHO = """
class H(nbserve.Handler):
    def handle(self, requests, context):
        return requests
"""


def test_an_order_says_what_to_start() -> None:
    order = Order.of_json({"bundle": "a/b", "name": "n", "settings": {"workers": 2}, "port": 8080}, Path("/root"))
    assert order == Order(Path("/root/a/b"), "n", {"workers": 2}, 8080)
    assert Order.of_json({"bundle": "/c", "name": None}, Path("/root")) == Order(Path("/c"))


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        ({}, "say which 'bundle' to start"),
        ({"bundle": 3}, "'bundle' is 3; it takes a text"),
        ({"bundle": "b", "port": True}, "'port' is True; it takes a whole number"),
        ({"bundle": "b", "settings": []}, "'settings' is []; it takes an object"),
        ({"bundle": "b", "worker": 2}, "'worker' is unknown here; there are: bundle, name, settings, port"),
    ],
)
def test_a_wrong_order_is_refused(wish: dict[str, object], text: str) -> None:
    with pytest.raises(BadRequest, match=re.escape(text)):
        Order.of_json(wish, Path("/"))


@pytest.mark.process
def test_a_bundle_is_started_and_stopped_again(jupyter: Jupyter, make_bundle) -> None:
    bundle = make_bundle(ECHO, "kept")
    wish = {"bundle": str(bundle.path), "name": "other", "settings": {"queue_size": 33}}
    started = jupyter.call("POST", API, wish)
    assert (started["name"], started["version"], started["state"]) == ("other", bundle.version, "READY")
    assert started["settings"]["queue_size"] == 33
    assert jupyter.ask("POST", "nbserve/endpoints/other", b"[1]", JSON).body == b"[1]"
    [server] = jupyter.call("GET", API)
    assert (server["server_id"], server["owner_pid"], server["detached"]) == (started["server_id"], None, True)
    jupyter.call("DELETE", f"nbserve/api/servers/{server['server_id']}")
    assert jupyter.call("GET", API) == []
    # Not even as a process that nobody has asked about.
    assert psutil.Process(jupyter.pid).children() == []


@pytest.mark.process
def test_a_bundle_that_does_not_start_says_why_and_leaves_nothing(jupyter: Jupyter, make_bundle) -> None:
    bundle = make_bundle("class H(nbserve.Handler):\n    def initialize(self, context):\n        1 / 0\n", "faulty")
    answer = jupyter.ask("POST", API, json.dumps({"bundle": str(bundle.path)}).encode(), JSON)
    error = json.loads(answer.body)
    assert (answer.status, error["type"]) == (500, "StartError")
    assert "ZeroDivisionError" in error["traceback"]
    assert "test.ipynb, cell 1" in error["traceback"]
    assert jupyter.call("GET", API) == []
    assert psutil.Process(jupyter.pid).children() == []


@pytest.mark.process
@pytest.mark.parametrize(
    ("settings", "kind"), [({"queue_size": 0}, "ConfigError"), ({"no_such_setting": 1}, "ConfigError")]
)
def test_wrong_settings_start_nothing(jupyter: Jupyter, make_bundle, settings, kind) -> None:
    wish = {"bundle": str(make_bundle(ECHO, "kept").path), "settings": settings}
    answer = jupyter.ask("POST", API, json.dumps(wish).encode(), JSON)
    assert (answer.status, json.loads(answer.body)["type"]) == (400, kind)
    assert jupyter.call("GET", API) == []


@pytest.mark.process
def test_what_is_no_bundle_starts_nothing(jupyter: Jupyter, tmp_path: Path) -> None:
    answer = jupyter.ask("POST", API, json.dumps({"bundle": str(tmp_path)}).encode(), JSON)
    assert (answer.status, json.loads(answer.body)["type"]) == (400, "BundleError")
    assert str(tmp_path) in json.loads(answer.body)["message"]
    for body in (b"[1]", b"{", b"{}"):
        assert jupyter.ask("POST", API, body, JSON).status == 400


@pytest.mark.process
def test_what_was_started_outlives_jupyter(make_bundle, tmp_path: Path) -> None:
    folder = tmp_path / "jupyter"
    folder.mkdir()
    with running_server(folder, "/", {}) as jupyter:
        # A relative path is below the folder that Jupyter shows.
        (folder / "kept").symlink_to(make_bundle(ECHO, "kept").path)
        jupyter.call("POST", API, {"bundle": "kept"})
    [server] = Server.find()
    try:
        assert server.endpoint("kept").predict([1, 2]) == [1, 2]
    finally:
        server.stop()

"""The REST API below base_url/nbserve/api/: what there is, its settings, logs and ends."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import psutil
import pytest

import nbserve
from nbserve.deployment import Server

from .conftest import JSON, Jupyter, Person

pytestmark = pytest.mark.process

API = "nbserve/api/endpoints"
ECHO = """
class H(nbserve.Handler):
    def handle(self, requests, context):
        print("heard", requests)
        return requests
"""


def ps() -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "nbserve", "ps", "--json"]
    found: list[dict[str, Any]] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def steady(servers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what changes while nothing happens."""
    for worker in (worker for server in servers for endpoint in server["endpoints"] for worker in endpoint["workers"]):
        del worker["rss_bytes"], worker["cpu_percent"]
    return servers


def test_the_list_is_that_of_ps(jupyter: Jupyter, serve_cell) -> None:
    endpoint = serve_cell(ECHO, "listed")
    with_two = Server.start().ready()
    try:
        found = jupyter.call("GET", API)
        assert steady(found) == steady(ps())
    finally:
        with_two.stop()
    names = [[each["name"] for each in server["endpoints"]] for server in found]
    assert names == [["listed"], []]
    assert endpoint.server.run_file.token not in json.dumps(found)
    assert [server["server_id"] for server in jupyter.call("GET", API)] == [endpoint.server.server_id]


def test_a_server_that_hangs_does_not_hang_the_list(jupyter: Jupyter, serve_cell) -> None:
    serve_cell(ECHO, "alive")
    hung = Server.start().ready()
    os.kill(hung.run_file.pid, signal.SIGSTOP)
    try:
        assert [[each["name"] for each in server["endpoints"]] for server in jupyter.call("GET", API)] == [["alive"]]
        assert jupyter.ask("POST", "nbserve/endpoints/alive", b"[1]", JSON).body == b"[1]"
    finally:
        os.kill(hung.run_file.pid, signal.SIGCONT)
        pid = hung.run_file.pid
        hung.stop()
    assert f"server {pid} does not answer and is left out" in jupyter.log.read_text()


def test_settings_change_on_the_server(jupyter: Jupyter, serve_cell) -> None:
    endpoint = serve_cell(ECHO)
    changed = jupyter.call("PATCH", f"{API}/{endpoint.name}", {"max_batch_size": 5, "queue_size": 77})
    assert (changed["settings"]["max_batch_size"], changed["settings"]["queue_size"]) == (5, 77)
    assert endpoint.settings == changed["settings"] == jupyter.call("GET", f"{API}/{endpoint.name}")["settings"]
    refused = jupyter.ask("PATCH", f"{API}/{endpoint.name}", b'{"max_batch_size": 0}', JSON)
    assert (refused.status, json.loads(refused.body)["type"]) == (400, "ConfigError")
    assert "max_batch_size" in json.loads(refused.body)["message"]


def test_the_parts_of_an_endpoint_are_those_of_the_management_api(jupyter: Jupyter, serve_cell, wait_until) -> None:
    endpoint = serve_cell(ECHO)
    api = f"{API}/{endpoint.name}"
    asked = {"body": "[1, 2]", "content_type": "application/json"}
    answered = jupyter.call("POST", f"{api}/predict", asked)
    assert (answered["status"], base64.b64decode(answered["body_base64"])) == (200, b"[1,2]")
    [pair] = jupyter.call("GET", f"{api}/recorded?last=1")
    assert base64.b64decode(pair["body_base64"]) == b"[1, 2]"
    wait_until(lambda: jupyter.call("GET", f"{api}/logs?lines=1"))
    assert [line["text"] for line in jupyter.call("GET", f"{api}/logs?lines=1")] == ["heard [[1, 2]]"]
    assert jupyter.call("GET", f"{api}/spans?last=1") == endpoint.spans(1)
    load = jupyter.call("POST", f"{api}/load", {"clients": 2, "seconds": 60})
    assert (load["is_running"], load["clients"]) == (True, 2)
    assert not jupyter.call("DELETE", f"{api}/load")["is_running"]


def test_a_bundle_is_downloaded_by_a_link(jupyter: Jupyter, serve_cell) -> None:
    endpoint = serve_cell(ECHO)
    answer = Person(jupyter).ask("GET", f"{API}/{endpoint.name}/bundle")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/gzip")
    assert f"{endpoint.name}-{endpoint.version}.tar.gz" in answer.headers["Content-Disposition"]
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
        assert any(name.endswith("nbserve.toml") for name in archive.getnames())


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("GET", f"{API}/nobody", "no running server has an endpoint 'nobody'; there are: known"),
        ("PATCH", f"{API}/nobody", "no running server has an endpoint 'nobody'; there are: known"),
        ("DELETE", f"{API}/nobody", "no running server has an endpoint 'nobody'; there are: known"),
        ("GET", f"{API}/nobody/stream", "no running server has an endpoint 'nobody'; there are: known"),
        ("POST", f"{API}/nobody/profile", "no running server has an endpoint 'nobody'; there are: known"),
        ("GET", f"{API}/known?server=..%2Fx", "no running server has the id '../x'; there are: {server}"),
        ("DELETE", "nbserve/api/servers/x", "no running server has the id 'x'; there are: {server}"),
        ("GET", "nbserve/api/servers", "nbserve has no route {base}nbserve/api/servers in Jupyter"),
        ("GET", f"{API}/known/debug", "nbserve has no route {base}nbserve/api/endpoints/known/debug in Jupyter"),
    ],
)
def test_what_there_is_not_is_said(jupyter: Jupyter, serve_cell, method: str, path: str, message: str) -> None:
    endpoint = serve_cell(ECHO, "known")
    answer = jupyter.ask(method, path, None if method == "GET" else b"{}", JSON)
    base = "/" + jupyter.url.split("/", 3)[3]
    said = message.format(server=endpoint.server.server_id, base=base)
    assert json.loads(answer.body) == {"code": 404, "type": "NotFound", "message": said}
    assert answer.status == 404


def test_an_endpoint_stops(jupyter: Jupyter, server: Server, make_bundle) -> None:
    server.deploy(make_bundle(ECHO, "brief").path)
    assert jupyter.call("DELETE", f"{API}/brief") == {}
    assert "brief" not in [endpoint.name for endpoint in server.endpoints()]


def test_which_server_when_several_have_the_name(jupyter: Jupyter, serve_cell, make_bundle) -> None:
    older = serve_cell(ECHO, "twin")
    server = Server.start().ready()
    newer = server.deploy(make_bundle(ECHO, "twin").path)
    try:
        jupyter.call("PATCH", f"{API}/twin?server={older.server.server_id}", {"queue_size": 11})
        jupyter.call("PATCH", f"{API}/twin", {"queue_size": 22})
        assert (older.settings["queue_size"], newer.settings["queue_size"]) == (11, 22)
    finally:
        server.stop()
    assert jupyter.call("GET", f"{API}/twin")["server_id"] == older.server.server_id


def test_a_whole_server_stops(jupyter: Jupyter, make_bundle) -> None:
    server = Server.start().ready()
    server.deploy(make_bundle(ECHO, "whole").path)
    pid = server.run_file.pid
    assert jupyter.call("DELETE", f"nbserve/api/servers/{server.server_id}") == {}
    assert not server.is_alive()
    assert not psutil.pid_exists(pid)


def test_the_token_stays_in_jupyters_server(jupyter: Jupyter, serve_cell) -> None:
    endpoint = serve_cell(ECHO)
    api, token = f"{API}/{endpoint.name}", endpoint.server.run_file.token
    paths = [API, api, f"{api}/logs", f"{api}/spans", f"{api}/recorded", f"{api}/nothing", f"{api}/load"]
    for answer in (jupyter.ask("GET", path) for path in paths):
        assert token.encode() not in answer.body
        assert token not in str(answer.headers)
    assert token not in jupyter.log.read_text()


def test_the_panels_module_is_fetched_once(jupyter: Jupyter) -> None:
    module = Path(nbserve.__file__).parent / "notebook" / "static" / "panel.js"
    answer = jupyter.ask("GET", "nbserve/static/panel.js")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/javascript; charset=utf-8")
    assert (answer.body, answer.headers["Cache-Control"]) == (module.read_bytes(), "no-cache")
    again = jupyter.ask("GET", "nbserve/static/panel.js", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")
    assert jupyter.ask("HEAD", "nbserve/static/panel.js").headers["Content-Length"] == str(len(answer.body))


def test_to_look_does_not_keep_an_idle_jupyter_alive(jupyter: Jupyter, serve_cell) -> None:
    endpoint = serve_cell(ECHO)

    def last_activity() -> str:
        # It does not count itself.
        return str(jupyter.call("GET", "api/status?no_track_activity=1")["last_activity"])

    before = last_activity()
    jupyter.call("GET", API)
    jupyter.call("GET", f"{API}/{endpoint.name}")
    assert last_activity() == before
    assert jupyter.ask("POST", f"nbserve/endpoints/{endpoint.name}", b"[1]", JSON).status == 200
    assert last_activity() > before

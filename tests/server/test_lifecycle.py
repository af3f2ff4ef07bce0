"""How a server starts, is found, is told to stop, and ends with its owner. Real processes."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from nbserve import runfile
from nbserve.deployment import Server, find_endpoint
from nbserve.errors import ServerGone

pytestmark = pytest.mark.process

SLOW = """
import time
class H(nbserve.Handler):
    def handle(self, requests, context):
        time.sleep(0.3)
        return requests
"""


def run_cli(*words, check=True):
    done = subprocess.run(
        [sys.executable, "-m", "nbserve", *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def test_a_server_ends_with_its_owner_even_when_that_is_killed(make_bundle, tmp_path, wait_until):
    bundle = make_bundle(SLOW)
    script = (
        "import sys, time; from nbserve.deployment import Server; s = Server.start(); "
        f"s.deploy({str(bundle.path)!r}, {{'workers': 2}}); print('up', flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout.readline() == "up\n"
    [info] = [server.info() for server in Server.find()]
    assert info["owner_pid"] == owner.pid
    pids = [info["pid"], info["nursery_pid"], *(w["pid"] for w in info["endpoints"][0]["workers"])]
    assert len(pids) == 4
    owner.kill()
    owner.wait()
    owner.stdout.close()
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    assert not Path(info["run_file"]).exists()
    assert list(runfile.runtime_dir().iterdir()) == []


def test_a_detached_server_is_found_again_and_stopped(make_bundle, wait_until):
    bundle = make_bundle(SLOW, "kept")
    script = (
        "from nbserve.deployment import Server; s = Server.start(); "
        f"s.deploy({str(bundle.path)!r}); s.detach(); print(s.run_file.pid)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    endpoint = find_endpoint("kept")
    assert endpoint.server.run_file.pid == int(done.stdout)
    assert endpoint.predict(3) == 3
    assert endpoint.server.info()["detached"]
    endpoint.server.stop()


def test_a_killed_server_takes_its_workers_along(make_bundle, wait_until):
    server = Server.start()
    endpoint = server.deploy(make_bundle(SLOW).path, {"workers": 2})
    info = server.info()
    pids = [info["nursery_pid"], *(worker["pid"] for worker in endpoint.stats()["workers"])]
    os.kill(info["pid"], signal.SIGKILL)
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    wait_until(lambda: not server.is_alive())
    with pytest.raises(ServerGone):
        endpoint.predict(1)
    assert Server.find() == []
    assert not Path(info["run_file"]).exists()


def test_sigterm_answers_what_is_in_flight_then_exits_0(make_bundle, post, wait_until):
    bundle = make_bundle(SLOW)
    command = [sys.executable, "-m", "nbserve", "serve", str(bundle.path), "--workers", "1", "--max-batch-size", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    url = process.stdout.readline().split()[-1]
    statuses = []
    clients = [threading.Thread(target=lambda: statuses.append(post(url, 1)[0])) for _ in range(10)]
    for client in clients:
        client.start()
    [server] = Server.find()
    wait_until(lambda: server.info()["endpoints"][0]["queued"] >= 4)
    process.send_signal(signal.SIGTERM)
    for client in clients:
        client.join()
    assert statuses == [200] * 10
    process.communicate(timeout=20)
    assert process.returncode == 0


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_bundle_that_cannot_start_ends_serve_with_its_traceback(make_bundle, log_format):
    bundle = make_bundle("class H(nbserve.Handler):\n    def initialize(self, context): {}['weights']\n")
    done = run_cli("serve", str(bundle.path), "--log-format", log_format, check=False)
    assert done.returncode == 1
    last = done.stderr
    if log_format == "json":
        last = [json.loads(line) for line in done.stderr.splitlines()][-1]["message"]
    assert "test.ipynb, cell 1, line 3" in last.replace('"test.ipynb, cell 1", line', "test.ipynb, cell 1, line")
    assert "KeyError: 'weights'" in last


def test_a_second_signal_ends_what_the_first_would_wait_for(make_bundle, wait_until):
    bundle = make_bundle(
        "import time\nclass H(nbserve.Handler):\n    def handle(self, rows, context): time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "nbserve", "serve", str(bundle.path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    url = urlsplit(process.stdout.readline().decode().split()[-1])
    connection = http.client.HTTPConnection(url.netloc, timeout=30)
    connection.request("POST", url.path, b"1")
    [server] = Server.find()
    wait_until(lambda: [w["state"] for w in server.info()["endpoints"][0]["workers"]] == ["BUSY"])
    process.send_signal(signal.SIGTERM)
    assert b"stopping" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    process.communicate(timeout=20)
    assert (process.returncode, time.monotonic() - begun < 5) == (128 + signal.SIGTERM, True)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        connection.getresponse()
    connection.close()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_server_that_is_still_starting_ends_when_it_is_told_to(make_bundle, wait_until, number):
    process = subprocess.Popen([sys.executable, "-m", "nbserve", "serve", str(make_bundle(SLOW).path)])
    wait_until(Server.find)
    process.send_signal(number)
    assert process.wait(20) == 0


def test_what_the_environment_says_wrongly_ends_serve(monkeypatch):
    monkeypatch.setenv("NBSERVE_LOG_FORMAT", "json")
    monkeypatch.setenv("NBSERVE_PORT", "tcp://10.0.0.1:8080")
    done = run_cli("serve", check=False)
    [line] = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert "enableServiceLinks: false" in json.loads(line)["message"]
    # A kernel's server does not listen to it.
    monkeypatch.setenv("NBSERVE_METRICS_PORT", "x")
    server = Server.start().ready()
    server.stop()


def test_serve_refuses_what_is_no_bundle_and_a_port_in_use(tmp_path, server):
    done = run_cli("serve", str(tmp_path), check=False)
    assert done.returncode == 1
    assert "bundle" in done.stderr
    assert "Traceback" not in done.stderr
    port = urlsplit(server.info()["url"]).port
    done = run_cli("serve", "--port", str(port), check=False)
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_line_reaches_a_running_endpoint(serve_cell, server):
    endpoint = serve_cell(SLOW, "told")
    [listed] = [s for s in json.loads(run_cli("ps", "--json").stdout) if s["pid"] == server.info()["pid"]]
    assert [e["name"] for e in listed["endpoints"]] == ["told"]
    assert listed["endpoints"][0]["settings"]["max_batch_size"] == 32
    assert "told" in run_cli("ps").stdout
    assert json.loads(run_cli("predict", "told", "[1, 2]").stdout) == [1, 2]
    assert "max_batch_size = 7" in run_cli("config", "told", "max_batch_size=7").stdout
    assert endpoint.settings["max_batch_size"] == 7
    assert "workers" in run_cli("config", "told").stdout
    assert run_cli("logs", "told").returncode == 0
    assert "there is no endpoint" in run_cli("predict", "nobody", "1", check=False).stderr.replace(
        "no running server has an endpoint", "there is no endpoint"
    )
    for verb in ("serve", "ps", "predict", "config", "logs", "stop"):
        assert verb in run_cli(verb, "--help").stdout
    assert "stopped" in run_cli("stop", "told").stdout
    assert server.endpoints() == []
    serve_cell(SLOW, "told")


def test_the_command_line_is_told_which_server_when_several_have_the_name(serve_cell, server, make_bundle):
    older = serve_cell(SLOW, "twin")
    newest = Server.start().ready()
    try:
        newer = newest.deploy(make_bundle(SLOW, "twin").path)
        run_cli("config", "twin", "queue_size=22")
        run_cli("config", "twin", "queue_size=11", "--server", server.server_id)
        assert (older.settings["queue_size"], newer.settings["queue_size"]) == (11, 22)
        run_cli("stop", "twin", "--server", newest.server_id)
        wrong = run_cli("predict", "twin", "1", "--server", newest.server_id, check=False)
        assert f"no running server {newest.server_id} has an endpoint 'twin'; there are: none" in wrong.stderr
    finally:
        newest.stop()


def management(server, method, path, token=None, body=b""):
    connection = http.client.HTTPConnection(urlsplit(server.run_file.management_url).netloc, timeout=10)
    try:
        connection.request(method, path, body, {"Authorization": f"Bearer {token}"} if token else {})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@pytest.mark.parametrize("token", [None, "wrong", "0" * 64])
def test_management_needs_its_token(server, token):
    for method, path in (("GET", "/server"), ("POST", "/stop"), ("GET", "/metrics"), ("GET", "/nowhere")):
        status, error = management(server, method, path, token)
        assert status == 401
        assert error["type"] == "Unauthorized"
    assert server.is_alive()


def test_management_says_what_is_wrong_with_a_request(server):
    token = server.run_file.token
    assert management(server, "GET", "/nowhere", token)[0] == 404
    assert management(server, "GET", "/endpoints/nobody", token)[0] == 404
    assert management(server, "GET", "/logs?lines=many", token)[0] == 400
    assert management(server, "PATCH", "/endpoints/nobody", token, b"{")[0] == 400
    assert management(server, "PATCH", "/endpoints/nobody", token, b"[]")[0] == 400


def test_an_interrupted_deployment_is_undone(server, make_bundle, wait_until):
    bundle = make_bundle("import time\nclass H(nbserve.Handler):\n    def initialize(self, context): time.sleep(60)\n")
    url = urlsplit(server.run_file.management_url)
    connection = http.client.HTTPConnection(url.netloc, timeout=10)
    headers = {"Authorization": f"Bearer {server.run_file.token}"}
    connection.request("PUT", "/endpoints/h", json.dumps({"bundle": str(bundle.path)}), headers)
    wait_until(lambda: [e["name"] for e in server.info()["endpoints"]] == ["h"])
    connection.close()
    wait_until(lambda: server.info()["endpoints"] == [])


def test_a_server_that_is_told_to_stop_gives_up_a_deployment(make_bundle, wait_until):
    bundle = make_bundle("import time\nclass H(nbserve.Handler):\n    def initialize(self, context): time.sleep(60)\n")
    server = Server.start().ready()
    failed = []

    def deploy():
        try:
            server.deploy(bundle.path)
        except ServerGone as error:
            failed.append(error)

    deploying = threading.Thread(target=deploy)
    deploying.start()
    wait_until(lambda: [e["name"] for e in server.info()["endpoints"]] == ["h"])
    begun = time.monotonic()
    server.stop()
    assert time.monotonic() - begun < 10
    deploying.join()
    assert len(failed) == 1


def test_starting_an_empty_server_does_not_wait_for_torch():
    begun = time.monotonic()
    server = Server.start()
    started_s = time.monotonic() - begun
    server.ready()
    server.stop()
    assert started_s < 1

"""Trials: settings tried out on workers of their own, and an endpoint that does not notice."""

from __future__ import annotations

import asyncio
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psutil
import pytest

from nbserve.deployment import Server
from nbserve.errors import BadRequest, ConfigError, NotFound, StartError, Unavailable
from nbserve.server.trials import Trials
from nbserve.verbs import Endpoint
from tests.server.stage import Stage, play, request

ASKS = """
import os
class H(nbserve.Handler):
    def handle(self, requests, context):
        import torch
        for x in requests:
            if x == "fail":
                raise ValueError("no good")
        return [[x, os.getpid(), torch.get_num_threads()] for x in requests]
"""
FAILS = """
class H(nbserve.Handler):
    def initialize(self, context):
        import torch
        if torch.get_num_threads() == 2:
            raise ValueError("two threads are too many")
    def handle(self, requests, context):
        return requests
"""
WAITS = """
import time
class H(nbserve.Handler):
    def initialize(self, context):
        import torch
        while torch.get_num_threads() == 2:
            time.sleep(0.01)
    def handle(self, requests, context):
        return requests
"""


class Try:
    """An open request for a trial; closing it ends the trial."""

    def __init__(self, endpoint: Endpoint, settings: dict[str, Any]) -> None:
        body = json.dumps({"settings": settings}).encode()
        self._answer = endpoint.server.send("POST", f"{endpoint.path}/trials", body, {})
        self._lines = self._answer.lines(60)
        self.said: list[dict[str, Any]] = []

    def next(self) -> dict[str, Any] | None:
        """The next line but progress, None at the end."""
        for line in self._lines:
            self.said.append(json.loads(line))
            if self.said[-1]["event"] != "progress":
                return self.said[-1]
        return None

    def ready(self) -> dict[str, Any]:
        line = self.next()
        assert line is not None
        assert line["event"] == "ready", line
        return line

    def close(self) -> None:
        self._answer.__exit__()


@pytest.fixture
def attempt() -> Iterator[Callable[..., Try]]:
    """Ask for a trial; it is closed after the test."""
    with ExitStack() as stack:

        def attempt(endpoint: Endpoint, **settings: Any) -> Try:
            tried = Try(endpoint, settings)
            stack.callback(tried.close)
            return tried

        yield attempt


def ask(url: str, body: Any = 1) -> tuple[int, Any]:
    sent = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(sent, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.status or 0, json.loads(error.read())


def worker_pids(endpoint: Endpoint) -> list[int]:
    found: list[int] = [worker["pid"] for worker in endpoint.stats()["workers"]]
    return found


@pytest.mark.process
def test_a_trial_has_its_own_settings_workers_and_spans(serve_cell, attempt, wait_until):
    endpoint = serve_cell(ASKS, workers=1)
    before = endpoint.server.metrics()
    tried = attempt(endpoint, threads_per_worker=2, workers=2)
    ready = tried.ready()
    assert (ready["version"], ready["url"]) == ("trial-1", f"{endpoint.url}/trial-1")
    assert (ready["settings"]["threads_per_worker"], ready["settings"]["workers"]) == (2, 2)
    assert [line["text"] for line in tried.said[:-1]] == [
        "starting 2 workers of trial-1",
        "1 of 2 workers ready",
        "2 of 2 workers ready",
    ]
    [trial] = endpoint.stats()["trials"]
    assert trial["bundle"] == str(endpoint.bundle)
    assert trial["version"] == "trial-1"
    assert trial["settings"] == ready["settings"]
    pids = {worker["pid"] for worker in trial["workers"]}
    status, [_, pid, threads] = ask(ready["url"])
    assert (status, threads) == (200, 2)
    assert pid in pids
    assert ask(ready["url"], "fail")[0] == 500
    assert "no good" not in endpoint.logs()
    assert f"{endpoint.name}/trial-1[" in endpoint.server.logs()
    assert len(endpoint.server.call("GET", f"{endpoint.path}/spans?version=trial-1")) == 2
    stats = endpoint.stats()
    assert (stats["requests"], stats["queued"], stats["state"]) == ({}, 0, "READY")
    assert endpoint.spans() == []
    assert _counts(endpoint.server.metrics()) == _counts(before)
    tried.close()
    wait_until(lambda: not any(map(psutil.pid_exists, pids)))
    wait_until(lambda: endpoint.stats()["trials"] == [])
    status, error = ask(ready["url"])
    assert (status, error["message"]) == (404, f"{endpoint.name} has no version trial-1; it serves {endpoint.version}")
    with pytest.raises(NotFound, match="has no version trial-1"):
        endpoint.server.call("GET", f"{endpoint.path}/spans?version=trial-1")


def _counts(metrics: str) -> list[str]:
    """The lines about requests."""
    names = ("nbserve_requests", "nbserve_batch", "nbserve_request", "nbserve_workers")
    return [line for line in metrics.splitlines() if line.startswith(names)]


@pytest.mark.process
def test_several_trials_at_once_are_told_apart(serve_cell, attempt):
    endpoint = serve_cell(ASKS)
    first, second = attempt(endpoint, threads_per_worker=1), attempt(endpoint, threads_per_worker=3)
    urls = {tried.ready()["settings"]["threads_per_worker"]: tried.said[-1]["url"] for tried in (first, second)}
    assert {threads: ask(url)[1][2] for threads, url in urls.items()} == {1: 1, 3: 3}
    assert {ask(url)[1][1] for url in (*urls.values(), endpoint.url)} >= {*worker_pids(endpoint)}
    assert len(endpoint.stats()["trials"]) == 2
    first.close()
    assert ask(urls[3])[0] == 200
    assert attempt(endpoint).ready()["version"] == "trial-3", "no name is used twice"


@pytest.mark.process
def test_a_client_on_a_kept_connection_reaches_what_it_names(serve_cell, attempt, wait_until):
    endpoint = serve_cell(ASKS)
    tried = attempt(endpoint)
    ready = tried.ready()
    path = f"/predictions/{endpoint.name}"
    connection = http.client.HTTPConnection(endpoint.server.run_file.url.rpartition("/")[2], timeout=20)

    def pid_at(path: str) -> Any:
        connection.request("POST", path, b"1", {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = json.loads(answer.read())
        return body[1] if answer.status == 200 else answer.status

    [pid] = worker_pids(endpoint)
    [trial] = endpoint.stats()["trials"]
    trial_pid = trial["workers"][0]["pid"]
    seen = [pid_at(path), pid_at(f"{path}/trial-1"), pid_at(path), pid_at(f"{path}/{endpoint.version}")]
    assert seen == [pid, trial_pid, pid, pid]
    assert pid_at(f"{path}/trial-2") == 404
    tried.close()
    wait_until(lambda: endpoint.stats()["trials"] == [])
    assert [pid_at(f"{path}/trial-1"), pid_at(path)] == [404, pid]
    assert ready["version"] == "trial-1"
    connection.close()


def change(endpoint: Endpoint, trial: str, **settings: Any) -> Any:
    """What the management API answers who changes a running trial; raises its errors."""
    return endpoint.server.call("PATCH", f"{endpoint.path}/trials/{trial}", settings)


@pytest.mark.process
def test_a_running_trial_scales_without_losing_a_request(serve_cell, attempt, load, wait_until):
    endpoint = serve_cell(ASKS, threads_per_worker=1)
    files = {path: path.read_bytes() for path in endpoint.bundle.rglob("*") if path.is_file()}
    ready = attempt(endpoint, workers=2).ready()
    with load(ready["url"], clients=3) as running:
        running.wait_for(20)
        for settings in ({"workers": 3}, {"workers": 1, "threads_per_worker": 2}, {"max_batch_size": 1}):
            changed = change(endpoint, "trial-1", **settings)
            assert len(changed["workers"]) == changed["settings"]["workers"]
            assert {worker["state"] for worker in changed["workers"]} <= {"READY", "BUSY"}
            running.wait_for(20)
        wait_until(lambda: json.loads(running.answers[-1])[2] == 2)
    assert set(running.statuses) == {200}
    [trial] = endpoint.stats()["trials"]
    assert trial == {**changed, "queued": 0, "workers": trial["workers"]}
    assert (trial["settings"]["max_batch_size"], trial["settings"]["threads_per_worker"]) == (1, 2)
    assert endpoint.settings["max_batch_size"] == 32
    assert files == {path: path.read_bytes() for path in endpoint.bundle.rglob("*") if path.is_file()}


@pytest.mark.process
def test_what_needs_other_workers_cannot_be_changed_in_a_trial(serve_cell, attempt):
    endpoint = serve_cell(FAILS, threads_per_worker=1)
    attempt(endpoint).ready()
    with pytest.raises(ConfigError, match="trial-1 runs, and dtype needs other workers: try it as another trial"):
        change(endpoint, "trial-1", dtype="bfloat16", workers=2)
    with pytest.raises(ConfigError, match="did you mean workers"):
        change(endpoint, "trial-1", worker=2)
    with pytest.raises(NotFound, match="has no trial trial-2 that is ready"):
        change(endpoint, "trial-2", workers=2)
    with pytest.raises(NotFound, match="there is no endpoint 'nobody'"):
        endpoint.server.call("PATCH", "/endpoints/nobody/trials/trial-1", {})
    [trial] = endpoint.stats()["trials"]
    assert (trial["settings"]["workers"], trial["settings"]["dtype"]) == (1, "")
    with pytest.raises(StartError, match="two threads are too many"):
        change(endpoint, "trial-1", workers=2, threads_per_worker=2)
    assert ask(f"{endpoint.url}/trial-1")[0] == 200


@pytest.mark.process
def test_settings_that_cannot_start_say_why(serve_cell, attempt):
    endpoint = serve_cell(FAILS, threads_per_worker=1)
    tried = attempt(endpoint, threads_per_worker=2)
    failed = tried.next()
    assert failed is not None
    assert (failed["event"], failed["type"], failed["code"]) == ("failed", StartError.kind, 500)
    assert "two threads are too many" in failed["message"]
    assert "line 7, in initialize" in failed["traceback"]
    assert tried.next() is None
    assert endpoint.stats()["trials"] == []
    with pytest.raises(ConfigError, match="there is no setting 'worker'; did you mean workers"):
        attempt(endpoint, worker=2)
    with pytest.raises(BadRequest, match="settings is 3; it takes an object"):
        endpoint.server.call("POST", f"{endpoint.path}/trials", {"settings": 3})
    with pytest.raises(NotFound):
        endpoint.server.call("POST", "/endpoints/nobody/trials", {})
    assert endpoint.predict(1) == 1


@pytest.mark.process
def test_a_client_that_hangs_up_during_the_start_leaves_nothing(serve_cell, attempt, wait_until):
    endpoint = serve_cell(WAITS, threads_per_worker=1)
    tried = attempt(endpoint, threads_per_worker=2, workers=2)
    wait_until(lambda: [t["workers"] for t in endpoint.stats()["trials"] if all(w["pid"] for w in t["workers"])])
    pids = [worker["pid"] for worker in endpoint.stats()["trials"][0]["workers"]]
    status, error = ask(f"{endpoint.url}/trial-1")
    assert (status, error["type"]) == (404, "NotFound"), "it is not ready"
    tried.close()
    wait_until(lambda: not any(map(psutil.pid_exists, pids)))
    wait_until(lambda: endpoint.stats()["trials"] == [])


@pytest.mark.process
def test_a_trial_ends_with_its_endpoint(serve_cell, attempt):
    endpoint = serve_cell(WAITS, "ends", threads_per_worker=1)
    ready, starting = attempt(endpoint), attempt(endpoint, threads_per_worker=2)
    ready.ready()
    endpoint.stop()
    for tried in (ready, starting):
        failed = tried.next()
        assert failed is not None
        assert failed["event"] == "failed"
        assert tried.next() is None
    serve_cell(WAITS, "ends", threads_per_worker=1)


@pytest.mark.process
def test_a_trial_outlives_a_new_version_but_not_the_server(make_bundle, attempt, wait_until):
    server = Server.start().ready()
    try:
        endpoint = server.deploy(make_bundle(ASKS, "h").path)
        ready = attempt(endpoint, threads_per_worker=1).ready()
        server.deploy(make_bundle(FAILS, "h").path, {"threads_per_worker": 1})
        assert ask(ready["url"])[1][2] == 1
        endpoint = server.deploy(make_bundle(WAITS, "h").path, {"threads_per_worker": 1})
        attempt(endpoint, threads_per_worker=2)
        wait_until(lambda: len(endpoint.stats()["trials"]) == 2)
    finally:
        server.stop()


def test_a_trial_shares_the_places_on_a_device_and_holds_at_no_breakpoint() -> None:
    async def scene(stage: Stage) -> None:
        current, [script] = await stage.serve(device="cuda")
        trials = Trials()
        config = current.config.changed({"workers": 1})
        async with _opened(trials, stage, current, config) as trial:
            version = trial.version
            assert trials.find(trial.name) is version
            tried = stage.scripts[-1]
            assert tried.spec["debug_socket"] is None
            assert (await tried.told("breakpoints"))["on"] is False
            current.submit(one := request())
            batch = await script.batch()
            version.submit(other := request())
            await asyncio.sleep(0)
            assert stage.slots.in_flight("cuda:0") == 1, "the GPU runs one batch at a time"
            script.answer(batch)
            tried.answer(await tried.batch())
            await asyncio.gather(one.reply, other.reply)
            assert (len(current.spans), len(version.spans)) == (1, 1)
            assert current.around.metrics.requests() == {200: 1}
        assert trials.all() == []
        await trials.close()
        with pytest.raises(Unavailable, match="endpoint h is stopping"):
            async with trials.open(current, config, lambda text: None):
                pass

    play(scene, gpus=1)


class _opened:
    """A trial whose workers are scripts: they get ready, and exit when they are told to stop."""

    def __init__(self, trials: Trials, stage: Stage, *how: Any) -> None:
        self._stage = stage
        self._before = len(stage.scripts)
        self._open = trials.open(*how, lambda text: None)

    async def __aenter__(self) -> Any:
        opening = asyncio.ensure_future(self._open.__aenter__())
        await self._stage.started(self._before + 1)
        return await opening

    async def __aexit__(self, *exc: Any) -> None:
        closing = asyncio.ensure_future(self._open.__aexit__(*exc))
        script = self._stage.scripts[self._before]
        await script.told("stop")
        script.exit()
        await closing

"""Recordings of real workers: live traffic, and workers that are held, killed, dismissed or replaced meanwhile."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from nbserve.deployment import Server
from nbserve.errors import Conflict
from nbserve.verbs import Endpoint

pytestmark = pytest.mark.process

ADDS = """
import os
class H(nbserve.Handler):
    def initialize(self, context):
        import torch
        self.model = torch.nn.Linear(2, 2)
    def preprocess(self, requests):
        import torch
        for x in requests:
            if x == "die":
                os._exit(9)
            if x == "hold":
                breakpoint()
        return torch.ones(len(requests), 2)
    def postprocess(self, outputs):
        return [os.getpid() for row in outputs]
"""


class Recorded:
    """An open recording; closing it gives it up."""

    def __init__(self, endpoint: Endpoint, wish: dict[str, Any]) -> None:
        self._answer = endpoint.server.send("POST", f"{endpoint.path}/profile", json.dumps(wish).encode(), {})
        self._lines = self._answer.lines(60)

    def next(self) -> dict[str, Any]:
        """The next line but progress."""
        for line in self._lines:
            if (said := json.loads(line))["event"] != "progress":
                return dict(said)
        raise AssertionError("the stream ended")

    def begun(self) -> Path:
        """Wait until it records; gives the end of its folder's path."""
        line = self.next()
        assert line["event"] == "recording", line
        return Path("profiles") / line["id"]

    def recorded(self) -> dict[str, Any]:
        line = self.next()
        assert line["event"] == "recorded", line
        recording: dict[str, Any] = line["recording"]
        return recording

    def close(self) -> None:
        self._answer.__exit__()


@pytest.fixture
def record() -> Iterator[Callable[..., Recorded]]:
    with ExitStack() as stack:

        def record(endpoint: Endpoint, **wish: Any) -> Recorded:
            recording = Recorded(endpoint, wish)
            stack.callback(recording.close)
            return recording

        yield record


def is_profiling(endpoint: Endpoint) -> list[bool]:
    return [worker["profiling"] for worker in endpoint.stats()["workers"]]


def test_the_next_batches_are_recorded_with_their_requests(serve_cell, record, load):
    endpoint = serve_cell(ADDS)
    assert is_profiling(endpoint) == [False]
    with load(endpoint.url) as clients:
        clients.wait_for(10)
        recorded = record(endpoint, batches=20)
        recorded.begun()
        recording = recorded.recorded()
        clients.wait_for(10)
    assert set(clients.statuses) == {200}
    assert (recording["endpoint"], recording["version"]) == (endpoint.name, endpoint.version)
    assert recording["settings"] == endpoint.settings
    [worker] = recording["workers"]
    assert (worker["error"], len(worker["batches"])) == (None, 20)
    assert set(worker["batches"]) <= {span["batch_id"] for span in recording["spans"]}
    assert recording["started_ns"] <= worker["started_ns"] < worker["ended_ns"] <= recording["ended_ns"]
    for kind in ("trace", "samples"):
        json.loads(Path(worker[kind]).read_bytes())
    folder = Path(worker["trace"]).parent
    assert folder.parent == endpoint.server.run_file.directory / "profiles"
    assert is_profiling(endpoint) == [False]


def test_all_workers_are_recorded_side_by_side_for_a_time(serve_cell, record, load):
    endpoint = serve_cell(ADDS, workers=2)
    with load(endpoint.url):
        recorded = record(endpoint, seconds=0.5, all=True)
        recorded.begun()
        assert is_profiling(endpoint) == [True, True]
        recording = recorded.recorded()
    assert [worker["index"] for worker in recording["workers"]] == [0, 1]
    assert {worker["error"] for worker in recording["workers"]} == {None}
    numbers = [number for worker in recording["workers"] for number in worker["batches"]]
    assert numbers
    assert set(numbers) <= {span["batch_id"] for span in recording["spans"]}


def test_a_client_that_hangs_up_leaves_nothing_on_and_nothing_behind(serve_cell, record, wait_until):
    endpoint = serve_cell(ADDS)
    recorded = record(endpoint, batches=1000)
    folder = endpoint.server.run_file.directory / recorded.begun()
    assert folder.is_dir()
    with pytest.raises(Conflict, match=r"worker 0 of .* records already"):
        record(endpoint)
    recorded.close()
    wait_until(lambda: not folder.exists())
    assert is_profiling(endpoint) == [False]
    endpoint.predict(1)
    again = record(endpoint, batches=1)
    again.begun()
    endpoint.predict(1)
    assert len(again.recorded()["spans"]) == 1


def test_a_worker_that_is_killed_is_told_and_served_again(serve_cell, record, post):
    endpoint = serve_cell(ADDS, workers=2)
    recorded = record(endpoint, batches=1000, all=True)
    recorded.begun()
    pids = [worker["pid"] for worker in endpoint.stats()["workers"]]
    os.kill(pids[1], signal.SIGKILL)
    os.kill(pids[0], signal.SIGKILL)
    workers = recorded.recorded()["workers"]
    assert [(worker["pid"], worker["trace"]) for worker in workers] == [(pids[0], None), (pids[1], None)]
    assert all("ended while it recorded: was killed with SIGKILL" in worker["error"] for worker in workers)
    assert post(endpoint.url, 1)[0] == 200


def test_a_worker_that_is_held_ends_its_recording(serve_cell, record, asked, ask_debug, attach):
    endpoint = serve_cell(ADDS)
    recorded = record(endpoint, batches=1000)
    recorded.begun()
    held = asked(endpoint.url, "hold")
    [worker] = recorded.recorded()["workers"]
    assert "worker 0 was held at test.ipynb, cell 1, line 14 in preprocess" in worker["error"]
    with pytest.raises(Conflict, match=r"worker 0 of .* is held"):
        record(endpoint, worker=0)
    debugger = attach(ask_debug(endpoint, "attach")["socket"])
    debugger.link.send("attach")
    debugger.prompted("c")
    assert held.answer()[0] == 200
    debugger.close()
    again = record(endpoint, batches=1, worker=0)
    again.begun()
    again.close()


def test_a_new_version_ends_it_with_what_it_has(serve_cell, record, load, tmp_path):
    endpoint = serve_cell(ADDS, "swap")
    recorded = record(endpoint, batches=100_000)
    recorded.begun()
    with load(endpoint.url) as clients:
        clients.wait_for(20)
        serve_cell(ADDS + "    kept = True\n", "swap")
        clients.wait_for(20)
    recording = recorded.recorded()
    assert set(clients.statuses) == {200}
    [worker] = recording["workers"]
    assert "its version was replaced" in worker["error"]
    json.loads(Path(worker["trace"]).read_bytes())
    assert set(worker["batches"]) == {span["batch_id"] for span in recording["spans"]}, "none of the new version's"
    assert recording["version"] != endpoint.version


def test_a_worker_that_is_not_needed_any_more_hands_over_what_it_has(serve_cell, record):
    endpoint = serve_cell(ADDS, workers=2)
    recorded = record(endpoint, batches=1000, worker=1)
    recorded.begun()
    endpoint.configure(workers=1)
    [worker] = recorded.recorded()["workers"]
    assert "needs fewer workers" in worker["error"]
    assert Path(worker["trace"]).exists()


def test_an_endpoint_that_stops_ends_it(serve_cell, record):
    endpoint = serve_cell(ADDS, "stops")
    recorded = record(endpoint, batches=1000)
    recorded.begun()
    endpoint.stop()
    assert recorded.recorded()["workers"][0]["error"]
    serve_cell(ADDS, "stops")


def test_the_start_is_recorded_when_the_environment_says_so(make_bundle, record, monkeypatch):
    monkeypatch.setenv("NBSERVE_PROFILE", "3")
    server = Server.start().ready()
    try:
        endpoint = server.deploy(make_bundle(ADDS, "h").path, {"workers": 2})
        recorded = record(endpoint, startup=True)
        recorded.begun()
        assert is_profiling(endpoint) == [True, True]
        for worker in endpoint.stats()["workers"]:
            for _ in range(3):
                server.call("POST", f"{endpoint.path}/workers/{worker['index']}/request", {"x": 1})
        workers = recorded.recorded()["workers"]
        assert [worker["index"] for worker in workers] == [0, 1]
        assert all(worker["facts"]["first_batch"] and len(worker["batches"]) == 3 for worker in workers)
        assert all("nbserve.initialize" in Path(worker["trace"]).read_text() for worker in workers)
    finally:
        server.stop()


def test_a_server_that_stops_says_so_and_takes_all_files_with_it(make_bundle, record):
    server = Server.start().ready()
    endpoint = server.deploy(make_bundle(ADDS, "h").path)
    recorded = record(endpoint, batches=1000)
    folder = server.run_file.directory / recorded.begun()
    assert folder.is_dir()
    server.stop()
    line = recorded.next()
    assert (line["event"], line["message"]) == ("failed", "the server stopped while it recorded")
    assert not folder.parent.parent.exists()

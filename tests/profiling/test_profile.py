"""Profiles of real workers: live traffic, recorded requests, load; several workers; files; ways to end."""

from __future__ import annotations

import errno
import gc
import gzip
import json
import tempfile
import threading
from pathlib import Path

import pytest

import nbserve
from nbserve import runfile
from nbserve.capture.capture import capture
from nbserve.deployment import Server
from nbserve.errors import Conflict, NbserveError, NotFound, ProfileError
from nbserve.profiling import folders, session
from nbserve.trace.model import CATEGORIES

pytestmark = [pytest.mark.process, pytest.mark.alone]

CELL = """\
import torch
class H(nbserve.Handler):
    def initialize(self, context):
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU()).eval()
    def preprocess(self, requests):
        return torch.tensor(requests, dtype=torch.float32)
    def inference(self, batch):
        with torch.inference_mode():
            return self.model(batch)
    def postprocess(self, out):
        return out.tolist()
"""
BODY = [1.0] * 8
# How far two clocks of one machine may be apart when they were compared while it was busy.
SLACK_NS = 1_000_000


def profiles_left(endpoint) -> list[Path]:
    return list((runfile.server_dir(endpoint.server.server_id) / "profiles").glob("*"))


def recorded_batches(profile) -> list[object]:
    return [batch for batch in profile.timeline.batches if batch.is_recorded]


def test_a_recording_that_finds_no_room_is_an_error_and_leaves_nothing(serve_cell, clients, monkeypatch, tmp_path):
    def move(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(session.shutil, "move", move)
    before = set(tmp_path.iterdir())
    endpoint = serve_cell(CELL)
    with clients(endpoint, 1, BODY), pytest.raises(ProfileError, match="No space left"):
        endpoint.profile(batches=1)
    assert profiles_left(endpoint) == []
    assert not [folder for folder in set(tmp_path.iterdir()) - before if folder.name.startswith(folders.PREFIX)]


def test_the_next_batches_of_live_traffic_are_recorded(serve_cell, clients):
    endpoint = serve_cell(CELL)
    with clients(endpoint, 2, BODY):
        profile = endpoint.profile(batches=8)
    batches = recorded_batches(profile)
    assert len(batches) == 8
    assert profile.load is None
    assert {span["batch_id"] for span in profile.requests} >= {batch.batch_id for batch in batches}
    assert all(batch.spans for batch in batches)


def test_every_operator_lies_inside_its_requests_batch(serve_cell, clients):
    endpoint = serve_cell(CELL)
    with clients(endpoint, 2, BODY):
        timeline = endpoint.profile(batches=6).timeline
    events = timeline.events
    inside = (events.batch >= 0) & (events.category == CATEGORIES.index("op"))
    names = {events.names[name] for name in events.name[inside]}
    assert {"aten::addmm", "aten::relu"} <= names
    for i in inside.nonzero()[0]:
        batch = timeline.batches[events.batch[i]]
        start_ns, end_ns = events.start_ns[i], events.start_ns[i] + events.duration_ns[i]
        where = (events.names[events.name[i]], start_ns - batch.taken_ns, batch.encoded_ns - end_ns)
        assert batch.taken_ns - SLACK_NS <= start_ns, where
        assert end_ns <= batch.encoded_ns + SLACK_NS, where
        for span in (timeline.spans[number] for number in batch.spans):
            assert span["received_ns"] - SLACK_NS <= start_ns, where
            assert end_ns <= span["received_ns"] + span["total_ms"] * 1e6 + SLACK_NS, where


def test_recorded_requests_are_sent_when_nobody_asks(serve_cell):
    endpoint = serve_cell(CELL)
    endpoint.predict(BODY)
    told: list[str] = []
    profile = endpoint.profile(batches=5, on_progress=told.append)
    assert profile.load is not None
    assert profile.load["errors"] == {}
    assert "nobody asks: sending the recorded requests" in told
    assert (told[0], told[-1]) == ("recording worker 0", "reading the trace")
    assert len(recorded_batches(profile)) == 5
    assert {row.name for row in profile.ops} >= {"aten::addmm", "nbserve.batch"}
    assert profile.findings
    assert profiles_left(endpoint) == []


def test_clients_that_give_up_are_stood_in_for(serve_cell, monkeypatch):
    monkeypatch.setattr(session, "LATER_SILENCE_S", 0.1)
    endpoint = serve_cell(CELL)

    def ask_once(text: str) -> None:
        if text == "recording worker 0":
            endpoint.predict(BODY)

    profile = endpoint.profile(batches=5, on_progress=ask_once)
    assert profile.load is not None
    assert len(recorded_batches(profile)) == 5


def test_without_any_request_it_says_what_to_do(serve_cell):
    endpoint = serve_cell(CELL)
    with pytest.raises(ProfileError, match="no request of it was recorded: send one"):
        endpoint.profile(seconds=30)
    with pytest.raises(ProfileError, match="no request of it was recorded"):
        endpoint.profile(load=10)
    # The first one left nothing that goes on.
    assert recorded_batches(endpoint.profile(batches=2, request=BODY))


def test_a_request_and_a_load_can_be_given(serve_cell):
    endpoint = serve_cell(CELL)
    profile = endpoint.profile(batches=4, request=BODY, load=100)
    assert profile.load is not None
    assert len(recorded_batches(profile)) == 4
    assert endpoint.spans(1)[0]["rows"] >= 1
    failing = endpoint.profile(batches=2, request={"not": "a vector"})
    assert failing.load is not None
    assert sum(failing.load["errors"].values()) >= 2
    assert "of the requests sent for it failed" in failing.text
    assert [finding.name for finding in failing.findings] == ["failing-requests"]


def test_all_workers_are_recorded_side_by_side(serve_cell, clients):
    endpoint = serve_cell(CELL, workers=2, max_batch_size=1)
    with clients(endpoint, 4, BODY):
        profile = endpoint.profile(batches=10, worker="all")
    assert {batch.worker for batch in recorded_batches(profile)} == {0, 1}
    tracks = {track.worker for track in profile.timeline.tracks}
    assert tracks == {0, 1}
    assert "recorded on workers 0, 1" in profile.text


def test_one_worker_can_be_chosen(serve_cell):
    endpoint = serve_cell(CELL, workers=2, max_batch_size=1)
    endpoint.predict(BODY)
    profile = endpoint.profile(batches=3, worker=1)
    assert {batch.worker for batch in recorded_batches(profile)} == {1}
    with pytest.raises(NotFound, match="no worker 7"):
        endpoint.profile(worker=7)
    with pytest.raises(ProfileError, match="it takes a worker's number, or all"):
        endpoint.profile(worker="both")


def test_only_one_records_at_a_time(serve_cell):
    endpoint = serve_cell(CELL)
    endpoint.predict(BODY)
    conflicts: list[NbserveError] = []

    def also(text: str) -> None:
        if text.startswith("recording worker"):
            with pytest.raises(Conflict) as caught:
                endpoint.profile(batches=1)
            conflicts.append(caught.value)

    endpoint.profile(batches=2, on_progress=also)
    assert "records already" in str(conflicts[0])


def test_leaving_early_ends_it_and_keeps_nothing(serve_cell, wait_until):
    """What Ctrl-C does, in the middle of a recording that would go on for an hour, with and without load."""
    endpoint = serve_cell(CELL)
    endpoint.predict(BODY)

    def interrupt(text: str) -> None:
        if text.startswith("recording: ") and not text.startswith("recording: 0"):
            raise KeyboardInterrupt

    for load in (None, 50):
        with pytest.raises(KeyboardInterrupt):
            endpoint.profile(seconds=3600, load=load, on_progress=interrupt)
        wait_until(lambda: profiles_left(endpoint) == [])
    assert recorded_batches(endpoint.profile(batches=2))


def test_it_is_saved_as_a_trace_and_as_a_page(serve_cell, tmp_path):
    endpoint = serve_cell(CELL)
    endpoint.predict(BODY)
    profile = endpoint.profile(batches=3)
    plain = json.loads(profile.save(tmp_path / "t.json").read_bytes())
    packed = json.loads(gzip.decompress(profile.save(str(tmp_path / "t.json.gz")).read_bytes()))
    names = {event["name"] for event in plain["traceEvents"]}
    assert "aten::addmm" in names
    assert names == {event["name"] for event in packed["traceEvents"]}
    assert "<script" in profile.save(tmp_path / "t.html").read_text()
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["t.html", "t.json", "t.json.gz"]


def test_what_cannot_be_saved_leaves_nothing(serve_cell, tmp_path, monkeypatch):
    endpoint = serve_cell(CELL)
    endpoint.predict(BODY)
    profile = endpoint.profile(batches=1)
    with pytest.raises(ProfileError, match="ends in none of"):
        profile.save(tmp_path / "t.txt")
    with pytest.raises(ProfileError, match="there is no folder"):
        profile.save(tmp_path / "nowhere" / "t.json")
    (tmp_path / "is_a_folder.json").mkdir()
    with pytest.raises(ProfileError, match="cannot write"):
        profile.save(tmp_path / "is_a_folder.json")
    old = tmp_path / "t.json"
    old.write_text("old")

    def half(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(profile, "_save_trace", half)
    with pytest.raises(ProfileError, match="No space left on device"):
        profile.save(old)
    assert old.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "store") == ["is_a_folder.json", "t.json"]


def test_its_files_go_with_it(serve_cell):
    endpoint = serve_cell(CELL)
    endpoint.predict(BODY)
    profile = endpoint.profile(batches=1)
    written = profile.timeline.recording["workers"][0]["trace"]
    assert written is not None
    folder = Path(written).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    del profile
    gc.collect()
    assert not folder.exists()


def test_stacks_and_memory_come_when_asked_for(serve_cell):
    endpoint = serve_cell(CELL)
    endpoint.predict(BODY)
    profile = endpoint.profile(batches=3, stacks=True, memory=True)
    assert profile.timeline.memory
    assert any("preprocess" in name for name in profile.timeline.events.names)


def test_a_slow_request_is_waited_for(serve_cell, tmp_path, monkeypatch, wait_until):
    """Nobody else is needed while one is being answered; the handler goes on when the test lets it."""
    monkeypatch.setattr(session, "SILENCE_S", 0.1)
    gate = tmp_path / "gate"
    endpoint = serve_cell(f"""\
import pathlib, time
class H(nbserve.Handler):
    def inference(self, batch):
        while not pathlib.Path({str(gate)!r}).exists():
            time.sleep(0.01)
        return batch
""")
    waits: list[str] = []

    def ask(text: str) -> None:
        if text == "recording worker 0":
            threading.Thread(target=endpoint.predict, args=([1],)).start()
            wait_until(lambda: endpoint.stats()["workers"][0]["state"].lower() == "busy")
        elif text == "recording: 0 batches":
            waits.append(text)
            if len(waits) == 4:
                # Between the answer and the end of the recording nobody asks: that is not what is tested.
                monkeypatch.setattr(session, "SILENCE_S", 60.0)
                gate.touch()

    profile = endpoint.profile(batches=1, on_progress=ask)
    assert (profile.load, len(recorded_batches(profile))) == (None, 1)


def test_the_start_is_recorded_when_the_environment_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("NBSERVE_PROFILE", "3")
    server = Server.start().ready()
    try:
        namespace = {"__name__": "__main__", "nbserve": nbserve}
        exec(compile("\n" + CELL, "<cell h>", "exec"), namespace)
        cell = (f"%%serve h\n{CELL}", "test.ipynb, cell 1")
        bundle = capture(namespace["H"], name="h", namespace=namespace, settings={}, cell=cell, store=tmp_path)
        endpoint = server.deploy(bundle.path)
        endpoint.predict(BODY)
        profile = endpoint.profile(startup=True)
        assert len(recorded_batches(profile)) == 3
        assert profile.timeline.recording["workers"][0]["facts"]["first_batch"]
        assert profiles_left(endpoint) == []
        with pytest.raises(NotFound, match="handed out already"):
            endpoint.profile(startup=True)
        del profile
    finally:
        server.stop()

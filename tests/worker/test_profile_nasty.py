"""Recordings of handlers that profile themselves, fork, trace, or leave no room to write. Real workers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from nbserve.worker.profile.tracer import NO_STACKS, OWN_FIRST, OWN_LATER
from tests.worker.recordings import LINEAR, ROW, Recordings, WriteBundle, batches_of, events_of, recordings

pytestmark = pytest.mark.process

__all__ = ["recordings"]

OWN_PROFILER = """
import threading
import torch
import nbserve.handler as nbserve

class Own(nbserve.Handler):
    def initialize(self, context):
        self.layer = torch.nn.Linear(4, 4)
        self.own = None

    def step(self):
        return self.layer(torch.ones(1, 4))

    def in_thread(self, answers):
        try:
            with torch.autograd.profiler.profile() as own:
                self.step()
            answers.append("profiled")
        except RuntimeError as error:
            answers.append(str(error))

    def handle(self, requests, context):
        verb = requests[0]
        self.step()
        if verb == "start":
            self.own = torch.autograd.profiler.profile()
            self.own.__enter__()
        elif verb == "stop":
            self.own.__exit__(None, None, None)
            return [[event.name for event in self.own.function_events]]
        elif verb == "whole":
            with torch.profiler.profile() as own:
                self.step()
            return [[event.name for event in own.events()]]
        elif verb == "schedule":
            steps = torch.profiler.schedule(wait=1, warmup=1, active=1, repeat=1)
            with torch.profiler.profile(schedule=steps) as own:
                for _ in range(3):
                    self.step()
                    own.step()
            return [[event.name for event in own.events()]]
        elif verb == "thread":
            answers = []
            thread = threading.Thread(target=self.in_thread, args=(answers,))
            thread.start()
            thread.join()
            return [answers]
        return [[]]
"""
FORKING = """
import os
import sys
import torch
import nbserve.handler as nbserve

class Forking(nbserve.Handler):
    def initialize(self, context):
        self.layer = torch.nn.Linear(4, 4)

    def handle(self, requests, context):
        self.layer(torch.ones(1, 4))
        if (pid := os.fork()) == 0:
            for _ in range(100):
                self.layer(torch.ones(1, 4))
            os._exit(7 if sys.getprofile() is None else 8)
        return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]
"""
NARROW = """
import resource
import nbserve.handler as nbserve
import torch

class Narrow(nbserve.Handler):
    def initialize(self, context):
        self.layer = torch.nn.Linear(4, 4)

    def handle(self, requests, context):
        if requests[0] is not None:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (requests[0], hard))
        self.layer(torch.ones(1, 4))
        return requests
"""
PROFILED = """
import sys
import torch
import nbserve.handler as nbserve

class Profiled(nbserve.Handler):
    def initialize(self, context):
        self.calls = 0
        sys.setprofile(self.count)

    def count(self, frame, event, arg):
        self.calls += 1

    def handle(self, requests, context):
        torch.ones(3).sum()
        return [sys.getprofile() is not None and self.calls > 0]
"""


@pytest.mark.parametrize("verb", ["whole", "schedule"])
def test_the_handlers_own_profiler_gets_what_it_asks_for(
    nursery: Any, bundle: WriteBundle, recordings: Recordings, verb: str
) -> None:
    worker = nursery.start_ready(bundle(OWN_PROFILER))
    number = recordings.begin(worker)
    worker.ask("work")
    [names] = worker.ask(verb)
    assert "aten::addmm" in names
    recording = recordings.result(worker, number)
    assert recording["error"] == OWN_LATER
    assert recording["batches"] == [1]
    assert 1 in batches_of(recording)
    recording = recordings.end(worker, _recorded(worker, recordings))
    assert recording["error"] is None


def test_a_profiler_that_the_handler_left_on_keeps_its_events(
    nursery: Any, bundle: WriteBundle, recordings: Recordings
) -> None:
    worker = nursery.start_ready(bundle(OWN_PROFILER))
    worker.ask("start")
    number = recordings.begin(worker)
    worker.ask("work")
    recording = recordings.end(worker, number)
    assert (recording["error"], recording["trace"], recording["batches"]) == (OWN_FIRST, None, [2])
    assert orjson.loads(Path(recording["samples"]).read_bytes())["total_ms"] > 0
    [names] = worker.ask("stop")
    assert names.count("aten::addmm") == 2
    assert recordings.end(worker, _recorded(worker, recordings))["error"] is None


def test_a_profiler_in_another_thread_is_told_to_wait(
    nursery: Any, bundle: WriteBundle, recordings: Recordings
) -> None:
    worker = nursery.start_ready(bundle(OWN_PROFILER))
    number = recordings.begin(worker)
    [[answer]] = worker.ask("thread")
    assert "nbserve records a profile of this worker now" in answer
    recording = recordings.end(worker, number)
    assert recording["error"] is None
    assert 1 in batches_of(recording)
    assert worker.ask("thread") == [["profiled"]]


def _recorded(worker: Any, recordings: Recordings) -> str:
    number = recordings.begin(worker)
    worker.ask("work")
    return number


@pytest.mark.parametrize("stacks", [False, True])
def test_a_process_that_the_handler_forks_records_nothing(
    nursery: Any, bundle: WriteBundle, recordings: Recordings, stacks: bool
) -> None:
    worker = nursery.start_ready(bundle(FORKING))
    number = recordings.begin(worker, memory=True, stacks=stacks)
    assert worker.ask(1) == [7]
    recording = recordings.end(worker, number)
    assert recording["error"] is None
    assert [event["name"] for event in events_of(recording)].count("aten::addmm") == 1


def test_a_folder_that_is_gone_is_an_error_of_the_recording(
    nursery: Any, bundle: WriteBundle, recordings: Recordings, tmp_path: Path
) -> None:
    worker = nursery.start_ready(bundle(LINEAR))
    number = recordings.start(worker, directory=str(tmp_path / "nowhere"))
    recording = recordings.result(worker, number)
    assert "the recording cannot be kept: FileNotFoundError" in recording["error"]
    assert recording["trace"] is None
    assert len(worker.ask(ROW)) == 1


def test_a_folder_that_goes_away_meanwhile_is_an_error_of_the_recording(
    nursery: Any, bundle: WriteBundle, recordings: Recordings
) -> None:
    worker = nursery.start_ready(bundle(LINEAR))
    number = recordings.begin(worker, memory=True)
    worker.ask(ROW)
    folder = recordings.folder / number
    (folder / "w0.trace.json").unlink()
    folder.rmdir()
    recording = recordings.end(worker, number)
    for what in ("the trace was not written", "the samples were not written", "the memory profile was not written"):
        assert what in recording["error"]
    assert [recording[kind] for kind in ("trace", "samples", "memory")] == [None] * 3
    assert len(worker.ask(ROW)) == 1


@pytest.mark.parametrize("room_bytes", [0, 3000])
def test_a_full_disk_is_an_error_of_the_recording(
    nursery: Any, bundle: WriteBundle, recordings: Recordings, room_bytes: int
) -> None:
    worker = nursery.start_ready(bundle(NARROW))
    number = recordings.begin(worker)
    worker.ask(room_bytes)
    for _ in range(20):
        worker.ask(None)
    recording = recordings.end(worker, number)
    assert "could not write the whole trace" in recording["error"]
    assert recording["trace"] is None
    assert worker.ask(None) == [None]


def test_a_profile_function_of_the_handlers_is_left_alone(
    nursery: Any, bundle: WriteBundle, recordings: Recordings
) -> None:
    worker = nursery.start_ready(bundle(PROFILED))
    number = recordings.begin(worker, stacks=True)
    assert worker.ask(1) == [True]
    recording = recordings.end(worker, number)
    assert recording["error"] == NO_STACKS
    assert "aten::sum" in {event["name"] for event in events_of(recording)}
    assert worker.ask(1) == [True]


def test_a_batch_that_fails_is_recorded(nursery: Any, bundle: WriteBundle, recordings: Recordings) -> None:
    worker = nursery.start_ready(bundle(LINEAR))
    number = recordings.begin(worker, batches=2)
    worker.send(b"[1.0]")
    assert worker.answer()[0] == 500
    worker.send(orjson.dumps(ROW))
    assert worker.answer()[0] == 200
    recording = recordings.result(worker, number)
    assert (recording["error"], recording["batches"]) == (None, [1, 2])
    assert list(batches_of(recording)) == [1, 2]


def test_a_worker_that_is_stopped_while_it_records_ends_as_usual(
    nursery: Any, bundle: WriteBundle, recordings: Recordings
) -> None:
    worker = nursery.start_ready(bundle(LINEAR))
    recordings.begin(worker, memory=True)
    worker.ask(ROW)
    worker.tell("stop")
    assert worker.frame() is None
    assert nursery.exit_code(worker) == 0


def test_one_recording_at_a_time(nursery: Any, bundle: WriteBundle, recordings: Recordings) -> None:
    worker = nursery.start_ready(bundle(LINEAR))
    first = recordings.begin(worker)
    worker.tell("profile_stop", id="another")
    second = recordings.start(worker)
    recording = recordings.result(worker, second)
    assert recording["error"] == f"the worker is recording already, for {first}"
    worker.ask(ROW)
    recording = recordings.end(worker, first)
    assert (recording["error"], recording["batches"]) == (None, [1])


def test_a_debugger_and_a_recording_get_along(
    nursery: Any, bundle: WriteBundle, recordings: Recordings, agent_of: Any
) -> None:
    worker = nursery.start_ready(bundle(LINEAR), debug_socket=agent_of.path)
    number = recordings.begin(worker)
    client = agent_of.client()
    client.say("stop", at="preprocess")
    client.event("armed")
    worker.send(orjson.dumps(ROW))
    assert "preprocess" in client.prompt()
    assert client.reply("p len(requests)").strip().endswith("1")
    client.last_reply("c")
    assert worker.answer()[0] == 200
    recording = recordings.end(worker, number)
    assert (recording["error"], recording["batches"]) == (None, [1])
    assert recording["facts"]["debugged"]
    assert 1 in batches_of(recording)


def test_the_log_stays_free_of_the_profilers_own_news(
    nursery: Any, bundle: WriteBundle, recordings: Recordings
) -> None:
    if "KINETO_LOG_LEVEL" in os.environ:
        pytest.skip("somebody wants to hear it")
    worker = nursery.start_ready(bundle(LINEAR))
    number = recordings.begin(worker, batches=1)
    worker.ask(ROW)
    recordings.result(worker, number)
    assert worker.log() == ""

"""A real worker that records: what it leaves, in which order it speaks, and that nothing stays on."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from nbserve import wire

pytestmark = pytest.mark.process

WriteBundle = Callable[..., Path]
LINEAR = """
import torch
import nbserve.handler as nbserve

class Linear(nbserve.Handler):
    def initialize(self, context):
        self.model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
"""
ROW = [1.0, 2.0, 3.0, 4.0]


class Recordings:
    """Asks a worker to record, and reads what it left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count(1)

    def start(self, worker: Any, **order: Any) -> str:
        number = f"r{next(self._numbers)}"
        folder = self.folder / number
        folder.mkdir(mode=0o700)
        message = {"directory": str(folder), "batches": None, "seconds": None, "stacks": False, "memory": False}
        worker.tell("profile", id=number, **message | order)
        return number

    def begin(self, worker: Any, **order: Any) -> str:
        number = self.start(worker, **order)
        assert worker.hear("profiling")["id"] == number
        return number

    def end(self, worker: Any, number: str) -> dict[str, Any]:
        worker.tell("profile_stop", id=number)
        return self.result(worker, number)

    def result(self, worker: Any, number: str) -> dict[str, Any]:
        event = worker.hear("profiled")
        assert event["id"] == number
        recording: dict[str, Any] = event["recording"]
        return recording


@pytest.fixture
def recordings(tmp_path: Path) -> Recordings:
    return Recordings(tmp_path)


def events_of(recording: dict[str, Any]) -> list[dict[str, Any]]:
    """The trace's events, with `start_ns` and `end_ns` on the worker's own clock."""
    trace = orjson.loads(Path(recording["trace"]).read_bytes())
    base_ns = trace["baseTimeNanoseconds"] - recording["epoch_offset_ns"]
    events = [event for event in trace["traceEvents"] if event.get("ph") == "X" and event.get("cat") != "Trace"]
    for event in events:
        event["start_ns"] = base_ns + event["ts"] * 1000
        event["end_ns"] = event["start_ns"] + event["dur"] * 1000
    return events


def batches_of(recording: dict[str, Any]) -> dict[int, dict[str, Any]]:
    names = {event["name"]: event for event in events_of(recording) if event["cat"] == "user_annotation"}
    return {int(name.removeprefix("nbserve.batch ")): event for name, event in names.items()}


def test_every_operator_lies_in_its_batch(nursery: Any, bundle: WriteBundle, recordings: Recordings) -> None:
    worker = nursery.start_ready(bundle(LINEAR))
    worker.ask(ROW)
    number = recordings.begin(worker, batches=3, shapes=True)
    stamps = {}
    for _ in range(3):
        batch_id = worker.send(orjson.dumps(ROW), orjson.dumps(ROW))
        stamps[batch_id] = worker.results().stamps
    recording = recordings.result(worker, number)
    assert recording["error"] is None
    assert recording["batches"] == list(stamps)
    batches = batches_of(recording)
    assert list(batches) == list(stamps)
    operators = [event for event in events_of(recording) if event["cat"] == "cpu_op"]
    assert sum(event["name"] == "aten::addmm" for event in operators) == 3
    for operator in operators:
        [batch_id] = [number for number, batch in batches.items() if _lies_in(operator, batch)]
        assert stamps[batch_id].taken_ns <= operator["start_ns"]
        assert operator["end_ns"] <= stamps[batch_id].encoded_ns
    for batch_id, batch in batches.items():
        assert batch["start_ns"] <= stamps[batch_id].taken_ns
        assert stamps[batch_id].encoded_ns <= batch["end_ns"]
    assert recording["started_ns"] <= min(stamp.taken_ns for stamp in stamps.values())
    assert max(stamp.encoded_ns for stamp in stamps.values()) <= recording["ended_ns"]


def _lies_in(inner: dict[str, Any], outer: dict[str, Any]) -> bool:
    return bool(outer["start_ns"] <= inner["start_ns"] and inner["end_ns"] <= outer["end_ns"])


def test_answers_are_sent_before_the_trace_is_written(
    nursery: Any, bundle: WriteBundle, recordings: Recordings
) -> None:
    worker = nursery.start_ready(bundle(LINEAR))
    recordings.start(worker, batches=2)
    for _ in range(3):
        worker.send(orjson.dumps(ROW))
    frames = [worker.frame() for _ in range(5)]
    kinds = [wire.decode_message(payload)["event"] if kind == wire.EVENT else "results" for kind, _, payload in frames]
    assert kinds == ["profiling", "results", "results", "profiled", "results"]

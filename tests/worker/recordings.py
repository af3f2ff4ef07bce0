"""Asks a real worker to record, and reads what it left."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

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
        worker.forget("writing")
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
    """The batches in the trace, by their numbers."""
    named = ((event["name"].partition("nbserve.batch ")[2], event) for event in events_of(recording))
    return {int(number): event for number, event in named if number}

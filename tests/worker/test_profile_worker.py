"""A real worker that records: what it leaves, in which order it speaks, and that nothing stays on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from nbserve import wire
from tests.worker.recordings import LINEAR, ROW, Recordings, WriteBundle, batches_of, events_of, recordings

__all__ = ["recordings"]

pytestmark = pytest.mark.process


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
    frames = [worker.frame() for _ in range(6)]
    kinds = [wire.decode_message(payload)["event"] if kind == wire.EVENT else "results" for kind, _, payload in frames]
    assert kinds == ["profiling", "results", "results", "writing", "profiled", "results"]


STATE = """
import gc, os, sys, threading, tracemalloc
import torch
import nbserve.handler as nbserve

class State(nbserve.Handler):
    def initialize(self, context):
        self.layer = torch.nn.Linear(4, 4)

    def handle(self, requests, context):
        if requests[0] == "work":
            self.layer(torch.ones(1, 4))
        return [self.state()] * len(requests)

    def state(self):
        return {
            "profiler": torch._C._autograd._profiler_enabled(),
            "hook": torch.autograd.profiler._prepare_profiler.__qualname__,
            "threads": sorted(thread.name for thread in threading.enumerate()),
            "tracemalloc": tracemalloc.is_tracing(),
            "profile": sys.getprofile() is not None,
            "switch_us": round(sys.getswitchinterval() * 1e6),
            "inductor": "torch._inductor" in sys.modules,
            "descriptors": len(os.listdir("/proc/self/fd")),
            "recordings": sum(type(each).__name__ == "Recording" for each in gc.get_objects()),
        }
"""


@pytest.mark.parametrize("stacks", [False, True])
def test_nothing_stays_on(nursery: Any, bundle: WriteBundle, recordings: Recordings, stacks: bool) -> None:
    worker = nursery.start_ready(bundle(STATE))
    [before] = worker.ask("state")
    for _ in range(3):
        number = recordings.begin(worker, memory=True, stacks=stacks)
        [during] = worker.ask("work")
        assert during["profiler"]
        assert during["tracemalloc"]
        assert during["threads"] == sorted([*before["threads"], "nbserve-allocations", "nbserve-sampler"])
        recording = recordings.end(worker, number)
        assert recording["error"] is None
        assert "aten::addmm" in {event["name"] for event in events_of(recording)}
        assert worker.ask("state") == [before]
    assert not before["inductor"]


def test_a_recording_without_batches_is_complete(nursery: Any, bundle: WriteBundle, recordings: Recordings) -> None:
    worker = nursery.start_ready(bundle(LINEAR))
    recording = recordings.end(worker, recordings.begin(worker, memory=True))
    assert (recording["error"], recording["batches"]) == (None, [])
    assert not [event for event in events_of(recording) if event["cat"] == "cpu_op"]
    samples = orjson.loads(Path(recording["samples"]).read_bytes())
    assert samples == {"interval_ms": 5, "total_ms": 0.0, "stacks": []}
    assert orjson.loads(Path(recording["memory"]).read_bytes())["device"] == "cpu"
    assert recording["facts"]["first_batch"] is False
    assert len(worker.ask(ROW)) == 1

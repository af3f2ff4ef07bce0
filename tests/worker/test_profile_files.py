"""What a recording tells beside its trace: samples, memory, facts; and recordings from a worker's start on."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.worker.recordings import LINEAR, ROW, Recordings, WriteBundle, batches_of, events_of, recordings

__all__ = ["recordings"]

pytestmark = pytest.mark.process

# Waits for the sampler, not for time.
SEEN = """
import gc
import nbserve.handler as nbserve

# %% story.ipynb, cell 7, line 11
def sampled_ns():
    return sum(sum(each._stacks.values()) for each in gc.get_objects() if type(each).__name__ == "Sampler")

# %% story.ipynb, cell 9, line 3
class Seen(nbserve.Handler):
    def initialize(self, context):
        self.wait()

    def wait(self):
        before_ns = sampled_ns()
        while sampled_ns() == before_ns:
            pass

    def preprocess(self, requests):
        self.wait()
        return requests

    def inference(self, batch):
        return batch
"""
HUNGRY = """
import gc
import nbserve.handler as nbserve

class Hungry(nbserve.Handler):
    def handle(self, requests, context):
        eaten = bytearray(10_000_000)
        # Until the look that may be under way and one more are over.
        looks = self.looks()
        while self.looks() < looks + 2:
            pass
        self.kept = [bytes(4000 + index) for index in range(50)]
        return [1]

    def looks(self):
        return sum(each.looks for each in gc.get_objects() if type(each).__name__ == "Allocations")
"""
GRAD = """
import torch
import nbserve.handler as nbserve

class Grad(nbserve.Handler):
    def initialize(self, context):
        self.model = torch.nn.Linear(4, 4)

    def inference(self, batch):
        return self.model(batch)

    def postprocess(self, outputs):
        return outputs.detach()
"""


def read(recording: dict[str, Any], kind: str) -> Any:
    return orjson.loads(Path(recording[kind]).read_bytes())


def test_samples_name_cells_and_leave_nbserve_out(nursery: Any, bundle: WriteBundle, recordings: Recordings) -> None:
    worker = nursery.start(bundle(SEEN), profile={"id": "startup", "directory": str(recordings.folder), "batches": 2})
    assert [worker.event()["event"] for _ in range(2)] == ["profiling", "ready"]
    worker.ask(1)
    worker.ask(1)
    samples = read(recordings.result(worker, "startup"), "samples")
    stacks = [stack["frames"] for stack in samples["stacks"]]
    cells = [frames for frames in stacks if frames[0][1] == "story.ipynb, cell 9"]
    assert {(frames[0][0].rpartition(".")[2], frames[0][2]) for frames in cells} == {
        ("initialize", 5),
        ("preprocess", 13),
    }
    assert {file for frames in cells for _, file, _ in frames} <= {"story.ipynb, cell 9", "story.ipynb, cell 7"}
    # nbserve's own work, such as reading the bundle.
    assert all(frames[0][1].startswith("nbserve/") for frames in stacks if frames not in cells)
    assert 0 < sum(stack["ms"] for stack in samples["stacks"]) <= samples["total_ms"]


def test_memory_tells_places_with_what_they_had_at_most(
    nursery: Any, bundle: WriteBundle, recordings: Recordings
) -> None:
    worker = nursery.start_ready(bundle(HUNGRY))
    number = recordings.begin(worker, memory=True)
    worker.ask(1)
    recording = recordings.end(worker, number)
    assert recording["error"] is None
    memory = read(recording, "memory")
    rows = {int(row["place"].rpartition(":")[2]): row for row in memory["python"] if "app.py:" in row["place"]}
    lines = [line.strip() for line in HUNGRY.splitlines()]
    eaten = rows[lines.index("eaten = bytearray(10_000_000)") + 1]
    kept = rows[lines.index("self.kept = [bytes(4000 + index) for index in range(50)]") + 1]
    assert eaten["peak_bytes"] >= 10_000_000
    assert eaten["bytes"] == eaten["count"] == 0
    assert kept["count"] >= 50
    assert 200_000 <= kept["bytes"] <= kept["peak_bytes"]
    assert memory["python_peak_bytes"] >= 10_000_000
    assert not any("profile/" in row["place"] for row in memory["python"])
    files = [Path(recording[kind]) for kind in ("trace", "samples", "memory")]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_memory_of_tensors_is_in_the_trace(nursery: Any, bundle: WriteBundle, recordings: Recordings) -> None:
    worker = nursery.start_ready(bundle(LINEAR))
    number = recordings.begin(worker, memory=True)
    worker.ask(ROW)
    recording = recordings.end(worker, number)
    events = orjson.loads(Path(recording["trace"]).read_bytes())["traceEvents"]
    changes = [event["args"]["Bytes"] for event in events if event.get("name") == "[memory]"]
    assert 16 in changes
    assert -16 in changes


@pytest.mark.parametrize(("source", "count"), [(GRAD, 2), (LINEAR, 0)])
def test_facts_say_whether_autograd_was_on(
    nursery: Any, bundle: WriteBundle, recordings: Recordings, source: str, count: int
) -> None:
    worker = nursery.start_ready(bundle(source), threads=2)
    number = recordings.begin(worker)
    worker.ask(ROW)
    worker.ask(ROW, ROW)
    recording = recordings.end(worker, number)
    facts = recording["facts"]
    assert facts["grad"] == {"batches_with_grad": count, "batches": 2}
    assert facts["first_batch"] is True
    assert facts["debugged"] is False
    assert (facts["num_threads"], recording["threads"], recording["device"]) == (2, 2, "cpu")
    assert facts["modules"][0]["name"] == "model"
    assert facts["handler"]["file"].endswith("app.py")
    recording = recordings.end(worker, recordings.begin(worker, batches=5))
    assert recording["facts"]["first_batch"] is False


def test_the_first_batch_is_only_the_first(nursery: Any, bundle: WriteBundle, recordings: Recordings) -> None:
    worker = nursery.start_ready(bundle(LINEAR))
    worker.ask(ROW)
    number = recordings.begin(worker, batches=1)
    worker.ask(ROW)
    assert recordings.result(worker, number)["facts"]["first_batch"] is False


def test_stacks_put_python_functions_into_the_trace(nursery: Any, bundle: WriteBundle, recordings: Recordings) -> None:
    worker = nursery.start_ready(bundle(GRAD))
    for stacks in (False, True):
        number = recordings.begin(worker, stacks=stacks)
        worker.ask(ROW)
        recording = recordings.end(worker, number)
        functions = [event["name"] for event in events_of(recording) if event["cat"] == "python_function"]
        assert any("app.py" in name and "inference" in name for name in functions) is stacks


def test_shapes_are_in_the_trace_when_asked_for(nursery: Any, bundle: WriteBundle, recordings: Recordings) -> None:
    worker = nursery.start_ready(bundle(LINEAR))
    for shapes in (False, True):
        number = recordings.begin(worker, shapes=shapes)
        worker.ask(ROW)
        [addmm] = [event for event in events_of(recordings.end(worker, number)) if event["name"] == "aten::addmm"]
        assert ("Input Dims" in addmm["args"]) is shapes


def test_a_recording_from_the_start_has_initialize_and_the_first_batches(
    own_nursery: Any, bundle: WriteBundle, recordings: Recordings
) -> None:
    source = LINEAR.replace("torch.nn.ReLU())", "torch.nn.ReLU())\n        self.model(torch.zeros(1, 4))")
    worker = own_nursery().start(
        bundle(source), profile={"id": "startup", "directory": str(recordings.folder), "batches": 2, "shapes": True}
    )
    assert [worker.event()["event"] for _ in range(2)] == ["profiling", "ready"]
    for _ in range(2):
        worker.ask(ROW)
    recording = recordings.result(worker, "startup")
    assert (recording["error"], recording["batches"]) == (None, [1, 2])
    assert recording["facts"]["first_batch"] is True
    events = events_of(recording)
    [initialize] = [event for event in events if event["name"] == "nbserve.initialize"]
    operators = [event for event in events if event["name"] == "aten::addmm"]
    assert initialize["start_ns"] <= operators[0]["start_ns"] <= operators[0]["end_ns"] <= initialize["end_ns"]
    assert len(operators) == 3
    assert list(batches_of(recording)) == [1, 2]


def test_a_start_that_fails_leaves_no_recording(nursery: Any, bundle: WriteBundle, recordings: Recordings) -> None:
    source = "\nimport nbserve.handler as nbserve\n\nclass A(nbserve.Handler):\n    initialize = None\n"
    worker = nursery.start(bundle(source), profile={"id": "startup", "directory": str(recordings.folder)})
    assert [worker.event()["event"] for _ in range(2)] == ["profiling", "failed"]
    assert worker.frame() is None
    assert nursery.exit_code(worker) == 3


def test_a_recording_ends_with_the_batch_after_its_time(
    nursery: Any, bundle: WriteBundle, recordings: Recordings
) -> None:
    worker = nursery.start_ready(bundle(LINEAR))
    number = recordings.begin(worker, seconds=1e-6)
    worker.ask(ROW)
    assert recordings.result(worker, number)["batches"] == [1]

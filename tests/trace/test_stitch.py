"""Requests, batches and events on one clock."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nbserve.trace import stitch
from nbserve.trace.model import CATEGORIES, Timeline
from tests.trace.gpu_traces import BASE_NS, EPOCH_OFFSET_NS, MONOTONIC_NS, GpuTrace, thick_bars, thin_stripes
from tests.trace.recordings import recorded, recording, span, worker_recording


def assert_inside(timeline: Timeline) -> None:
    """Every operator and kernel of a batch lies between its first stage and its last."""
    events = timeline.events
    # Of Python functions some that the batch calls end after it: those that measure it.
    chosen = (events.batch >= 0) & (events.category != CATEGORIES.index("python"))
    batches = [timeline.batches[i] for i in events.batch[chosen]]
    assert (events.start_ns[chosen] >= [batch.taken_ns for batch in batches]).all()
    assert (events.start_ns[chosen] + events.duration_ns[chosen] <= [batch.encoded_ns for batch in batches]).all()


def names_of(timeline: Timeline, batch: int) -> set[str]:
    return {timeline.events.names[i] for i in timeline.events.name[timeline.events.batch == batch]}


@pytest.mark.parametrize("stacks", [False, True])
def test_every_real_op_lies_inside_its_batch(stacks: bool, tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU())

    def work(batch_id: int) -> None:
        net(torch.ones(batch_id + 1, 8)).sum().backward()

    timeline = stitch.timeline(recorded(tmp_path, work, batches=5, with_stack=stacks)[0])
    assert [batch.batch_id for batch in timeline.batches] == [1, 2, 3, 4, 5]
    assert all(batch.is_recorded for batch in timeline.batches)
    for i in range(5):
        assert {f"nbserve.batch {i + 1}", "aten::addmm", "AddmmBackward0"} <= names_of(timeline, i)
    ops = timeline.events.category != CATEGORIES.index("python")
    assert (timeline.events.batch[ops] >= 0).all()
    assert_inside(timeline)
    assert not timeline.notes


def test_the_shapes_of_a_batch_are_its_own(tmp_path: Path) -> None:
    net = torch.nn.Linear(8, 4)
    timeline = stitch.timeline(recorded(tmp_path, lambda batch_id: net(torch.ones(batch_id + 1, 8)), batches=3)[0])
    events = timeline.events
    for i in range(3):
        linear = (events.batch == i) & (events.name == list(events.names).index("aten::linear"))
        assert [events.details[d] for d in events.detail[linear]] == [f"float32[{i + 2},8], float32[4,8], float32[4]"]


def test_other_threads_of_a_worker_count_in_its_batch(tmp_path: Path) -> None:
    pytest.importorskip("torch._C._profiler")
    config = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)

    def work(_: int) -> None:
        thread = threading.Thread(target=lambda: torch.ones(3).cos())
        thread.start()
        thread.join()

    timeline = stitch.timeline(recorded(tmp_path, work, experimental_config=config)[0])
    assert len(timeline.tracks) >= 2
    for i in range(3):
        assert "aten::cos" in names_of(timeline, i)
    assert_inside(timeline)


def test_events_outside_of_batches_belong_to_none(tmp_path: Path) -> None:
    trace = GpuTrace()
    trace.op("aten::zeros", "fill", 1.0, [[2]])
    trace.host(50)
    trace.batch(4, 2, lambda: trace.op("aten::add", "add", 1.0, [[2]]))
    trace.host(50)
    trace.op("aten::ones", "fill", 1.0, [[2]])
    timeline = stitch.timeline(recording([trace.recording(tmp_path / "t.json")], trace.spans))
    assert names_of(timeline, -1) == {"aten::zeros", "aten::ones", "fill", "cudaLaunchKernel"}
    assert names_of(timeline, 0) == {"nbserve.batch 4", "aten::add", "add", "cudaLaunchKernel"}


def test_times_of_the_trace_are_on_the_clock_of_the_requests(tmp_path: Path) -> None:
    trace = GpuTrace(start_us=12.345)
    trace.batch(1, 1, lambda: trace.op("aten::add", "add", 1.0, [[2]]))
    timeline = stitch.timeline(recording([trace.recording(tmp_path / "t.json")], trace.spans))
    # The batch is annotated 8 us after it was taken.
    first = int(timeline.events.start_ns.min())
    assert abs(first - (MONOTONIC_NS + 20_345)) <= 1
    assert timeline.batches[0].taken_ns == MONOTONIC_NS + 12_345
    assert BASE_NS < EPOCH_OFFSET_NS


def test_batches_have_the_stages_of_their_requests() -> None:
    spans = [span(3, 1_000_000, 2_000_000, rows=2, row=row) for row in range(2)] + [span(4, 2_500_000, 3_000_000)]
    timeline = stitch.timeline(recording([worker_recording(None, batches=[3])], spans))
    third, fourth = timeline.batches
    assert (third.batch_id, third.spans, third.is_recorded) == (3, (0, 1), True)
    assert third.marks() == (1_000_000, 1_200_000, 1_700_000, 1_900_000, 2_000_000)
    assert (fourth.batch_id, fourth.spans, fourth.is_recorded) == (4, (2,), False)


def test_a_batch_without_requests_is_known_by_its_annotation(tmp_path: Path) -> None:
    trace = GpuTrace()
    trace.batch(9, 1, lambda: trace.op("aten::add", "add", 1.0, [[2]]))
    timeline = stitch.timeline(recording([trace.recording(tmp_path / "t.json")], []))
    (batch,) = timeline.batches
    assert (batch.batch_id, batch.spans, batch.is_recorded) == (9, (), True)
    assert batch.taken_ns == batch.preprocessed_ns < batch.inferred_ns == batch.encoded_ns
    assert (timeline.events.batch == 0).all()


def test_a_batch_that_two_workers_had_is_two() -> None:
    spans = [span(3, 1_000_000, 2_000_000, worker=1), span(3, 4_000_000, 5_000_000, worker=0)]
    timeline = stitch.timeline(recording([worker_recording(None), worker_recording(None, index=1)], spans))
    assert [(batch.worker, batch.spans) for batch in timeline.batches] == [(1, (0,)), (0, (1,))]


@pytest.mark.parametrize("make", [thin_stripes, thick_bars])
def test_workers_on_gpus_lie_side_by_side(make: Any, tmp_path: Path) -> None:
    timeline = stitch.timeline(make(tmp_path, batches=2, ops=10, workers=3))
    assert [(track.worker, track.kind, track.name) for track in timeline.tracks] == [
        (worker, kind, name)
        for worker in range(3)
        for kind, name in (("cpu", "main thread"), ("gpu", f"GPU {worker} stream 7"))
    ]
    workers = np.array([track.worker for track in timeline.tracks])[timeline.events.track]
    assert (workers == [timeline.batches[i].worker for i in timeline.events.batch]).all()
    assert_inside(timeline)


def test_threads_are_called_by_their_names(tmp_path: Path) -> None:
    def op(pid: int, tid: int, cat: str = "cpu_op") -> dict[str, Any]:
        return {"ph": "X", "cat": cat, "name": "x", "pid": pid, "tid": tid, "ts": 1, "dur": 1}

    def name(tid: int, text: str) -> dict[str, Any]:
        return {"ph": "M", "name": "thread_name", "pid": 50, "tid": tid, "args": {"name": f"thread {tid} ({text})"}}

    events = [
        op(1, 7, "kernel"),
        op(50, 61),
        op(50, 60),
        op(-1, 0, "overhead"),
        op(50, 50, "python_function"),
        op(50, 50),
        name(50, "python"),
        name(60, "pt_autograd_0"),
        name(61, "python"),
    ]
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"traceEvents": events}))
    tracks = stitch.timeline(recording([worker_recording(path)], [])).tracks
    assert [track.name for track in tracks] == [
        "main thread",
        "main thread, Python",
        "profiler",
        "pt_autograd_0 60",
        "thread 61",
        "GPU 1 stream 7",
    ]


def test_a_launch_and_its_kernel_have_one_number_and_no_other_worker_has_it(tmp_path: Path) -> None:
    events = stitch.timeline(thin_stripes(tmp_path, batches=2, ops=10, workers=2)).events
    kernels = np.flatnonzero(events.category == CATEGORIES.index("kernel"))
    launches = np.flatnonzero(events.category == CATEGORIES.index("runtime"))
    for kernel in kernels:
        (launch,) = launches[events.correlation[launches] == events.correlation[kernel]]
        assert events.batch[launch] == events.batch[kernel]
        assert events.start_ns[launch] < events.start_ns[kernel]
    assert len(set(events.correlation[kernels])) == len(kernels) == 40


def test_a_kernel_that_runs_late_belongs_to_the_batch_that_launched_it(tmp_path: Path) -> None:
    trace = GpuTrace()
    # Nothing waits for the first batch's kernel: it runs during the second batch, and after.
    trace.batch(1, 1, lambda: trace.op("aten::mm", "gemm", 500.0, [[2, 2], [2, 2]]))
    trace.batch(2, 1, lambda: trace.op("aten::add", "add", 1.0, [[2, 2]]))
    timeline = stitch.timeline(recording([trace.recording(tmp_path / "t.json")], trace.spans))
    assert {"gemm", "aten::mm"} <= names_of(timeline, 0)
    assert {"add", "aten::add"} <= names_of(timeline, 1)
    gpu_annotations = timeline.events.category == CATEGORIES.index("gpu_annotation")
    assert timeline.events.batch[gpu_annotations].tolist() == [0, 1]


def test_kernels_that_overlap_keep_all_their_time(tmp_path: Path) -> None:
    events = [
        {"ph": "X", "cat": "kernel", "name": name, "pid": 0, "tid": 7, "ts": ts, "dur": dur, "args": {}}
        for name, ts, dur in (("long", 0, 10), ("short", 2, 3))
    ]
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"traceEvents": events}))
    found = stitch.timeline(recording([worker_recording(path)], [])).events
    assert found.self_ns.tolist() == [10_000, 3_000]


def test_what_cannot_be_read_is_noted(tmp_path: Path) -> None:
    for name in ("trace", "samples", "memory"):
        (tmp_path / name).write_text("nonsense")
    worker = worker_recording(tmp_path / "trace")
    worker |= {"samples": str(tmp_path / "samples"), "memory": str(tmp_path / "memory"), "error": "it died"}  # type: ignore[typeddict-item]
    timeline = stitch.timeline(recording([worker], [span(1, 0, 1_000)]))
    notes = "\n".join(timeline.notes)
    for text in ("it died", "no operators to show", "Python stacks cannot be read", "memory profile cannot be read"):
        assert text in notes
    assert len(timeline.batches) == 1
    assert len(timeline.events) == 0
    assert not timeline.stacks


def test_samples_and_memory_of_wrong_shape_are_noted(tmp_path: Path) -> None:
    (tmp_path / "samples").write_text('{"stacks": [{"frames": 5}]}')
    (tmp_path / "memory").write_text('{"python": [{"place": "x"}]}')
    worker = worker_recording(None)
    worker |= {"samples": str(tmp_path / "samples"), "memory": str(tmp_path / "memory")}  # type: ignore[typeddict-item]
    notes = stitch.timeline(recording([worker], [])).notes
    assert len(notes) == 2
    assert all("not as they should be" in note or "not as it should be" in note for note in notes)


def test_a_damaged_trace_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = thin_stripes(tmp_path, batches=3, ops=20)
    path = Path(str(whole["workers"][0]["trace"]))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    timeline = stitch.timeline(whole)
    assert "Worker 0: The trace is not complete" in timeline.notes[0]
    assert len(timeline.batches) == 3
    assert 0 < len(timeline.events) < 3 * 70


def test_torch_memory_over_time_and_the_places_of_python(tmp_path: Path) -> None:
    found, _ = recorded(tmp_path, lambda _: torch.ones(1024).add(1), profile_memory=True)
    place = {"place": "net.py:3", "bytes": 5, "peak_bytes": 9, "count": 1}
    more = {"place": "net.py:4", "bytes": 5, "peak_bytes": 90, "count": 2}
    path = tmp_path / "memory.json"
    path.write_text(json.dumps({"device": "cpu", "torch": [], "python": [place, more]}))
    found["workers"][0]["memory"] = str(path)
    (use,) = stitch.timeline(found).memory
    assert (use.worker, use.device) == (0, "cpu")
    assert use.allocated_bytes.max() - use.allocated_bytes.min() >= 4096
    assert ((use.time_ns >= found["started_ns"]) & (use.time_ns <= found["ended_ns"])).all()
    assert [row.place for row in use.rows] == ["net.py:4", "net.py:3"]


def test_memory_that_the_worker_sampled_itself(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    path.write_text(json.dumps({"device": "cuda:0", "torch": [[10, 64], [20, 128]], "python": []}))
    worker = worker_recording(None)
    worker["memory"] = str(path)
    (use,) = stitch.timeline(recording([worker], [])).memory
    assert (use.device, use.time_ns.tolist(), use.allocated_bytes.tolist()) == ("cuda:0", [10, 20], [64, 128])

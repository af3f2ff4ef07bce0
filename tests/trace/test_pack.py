"""The block for the viewer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nbserve.trace import ops, pack, stacks, stitch
from nbserve.trace.model import CATEGORIES, Finding, MemoryRow, MemoryUse, Timeline
from tests.trace.gpu_traces import MONOTONIC_NS, thin_stripes
from tests.trace.recordings import recording, span, worker_recording


@pytest.fixture
def timeline(tmp_path: Path) -> Timeline:
    return stitch.timeline(thin_stripes(tmp_path, batches=3, ops=20, workers=2))


def test_arrays_are_the_events(timeline: Timeline) -> None:
    header, arrays = pack.unpack(pack.pack(timeline))
    events, start_ns = timeline.events, int(header["start_ns"])
    assert header["version"] == 1
    assert [header["names"][i] for i in arrays["name"]] == [events.names[i] for i in events.name]
    assert [header["categories"][i] for i in arrays["category"]] == [CATEGORIES[i] for i in events.category]
    for name in ("detail", "track", "depth", "batch", "correlation"):
        assert arrays[name].tolist() == getattr(events, name).tolist()
    assert np.abs(arrays["start_us"] * 1000 - (events.start_ns - start_ns)).max() < 0.01
    assert arrays["duration_us"] == pytest.approx(events.duration_ns / 1e3)
    assert arrays["self_us"] == pytest.approx(events.self_ns / 1e3)


def test_arrays_are_as_the_header_says(timeline: Timeline) -> None:
    header, arrays = pack.unpack(pack.pack(timeline))
    assert {name: kind for name, (kind, _) in header["arrays"].items()} == {
        "name": "i4",
        "detail": "i4",
        "track": "i2",
        "start_us": "f8",
        "duration_us": "f4",
        "self_us": "f4",
        "depth": "i2",
        "batch": "i4",
        "correlation": "i4",
        "category": "i1",
    }
    assert {len(array) for array in arrays.values()} == {len(timeline.events)}


def test_times_begin_with_the_first_request(timeline: Timeline) -> None:
    header, arrays = pack.unpack(pack.pack(timeline))
    first = timeline.spans[0]["received_ns"]
    assert int(header["start_ns"]) == min(first, MONOTONIC_NS)
    assert arrays["start_us"].min() >= 0
    assert (arrays["start_us"] + arrays["duration_us"]).max() <= header["duration_us"]


def test_requests_have_stages_and_a_batch(timeline: Timeline) -> None:
    header, _ = pack.unpack(pack.pack(timeline))
    assert len(header["spans"]) == len(timeline.spans) == 3 * 2 * 4
    for shown in header["spans"]:
        batch = header["batches"][shown["batch"]]
        assert batch["worker"] == shown["worker"]
        stages = dict(shown["stages"])
        taken_us = shown["start_us"] + sum(stages[name] for name in ("receive", "queue", "batch_wait", "ipc"))
        assert taken_us == pytest.approx(batch["start_us"], abs=0.01)
        assert sum(stages.values()) == pytest.approx(shown["total_us"])


def test_batches_have_the_stages_that_the_worker_measured(timeline: Timeline) -> None:
    header, _ = pack.unpack(pack.pack(timeline))
    for shown in header["batches"]:
        assert [name for name, _, _ in shown["stages"]] == ["preprocess", "inference", "postprocess", "encode"]
        assert shown["stages"][0][1] == shown["start_us"]
        assert (shown["rows"], shown["recorded"]) == (4, True)


def test_the_rest_of_a_profile_is_in_the_header(timeline: Timeline) -> None:
    finding = Finding("launch-bound", "x", 1.0, 2.0, "why", "fix", 1.5, {"compile": "inductor"})
    use = MemoryUse(0, np.array([MONOTONIC_NS]), np.array([64]), "cuda:0", (MemoryRow("net.py:3", 1, 2, 3),))
    tree = stacks.tree([{"frames": [["f", "net.py", 3]], "ms": 2.0}])
    full = replace(timeline, stacks={1: tree}, memory=[use], notes=["said"])
    header, _ = pack.unpack(pack.pack(full, [finding]))
    assert header["findings"][0]["settings"] == {"compile": "inductor"}
    assert header["stacks"]["1"]["children"][0]["name"] == "f"
    assert header["memory"][0]["bytes"] == [64]
    assert header["memory"][0]["rows"][0]["place"] == "net.py:3"
    assert header["notes"] == ["said"]
    assert header["settings"] == {"max_batch_size": 4, "workers": 2}
    assert [row["name"] for row in header["ops"]] == [row.name for row in ops.table(timeline)]
    assert [track["kind"] for track in header["tracks"]] == ["cpu", "gpu"] * 2


def test_of_too_many_events_the_longest_are_shown(timeline: Timeline) -> None:
    header, arrays = pack.unpack(pack.pack(timeline, max_events=50))
    assert len(arrays["name"]) == 50
    longest = sorted(timeline.events.duration_ns.tolist())[-50:]
    assert sorted(arrays["duration_us"].tolist()) == pytest.approx([ns / 1e3 for ns in longest])
    assert "the longest 50" in header["notes"][-1]
    assert header["ops"] == pack.unpack(pack.pack(timeline))[0]["ops"]


def test_of_too_many_requests_those_of_recorded_batches_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "MAX_SPANS", 3)
    spans = [span(i, 1_000_000 * i, 1_000_000 * i + 1_000) for i in range(1, 9)]
    found = stitch.timeline(recording([worker_recording(None, batches=[7, 8])], spans))
    header, _ = pack.unpack(pack.pack(found))
    batches = [header["batches"][shown["batch"]]["batch_id"] for shown in header["spans"]]
    assert batches == [1, 7, 8]
    assert "8 requests" in header["notes"][-1]


def test_long_memory_curves_keep_their_peaks() -> None:
    use = MemoryUse(0, np.arange(100_000), np.zeros(100_000, np.int64), "cpu", ())
    use.allocated_bytes[77_777] = 5
    timeline = replace(stitch.timeline(recording([], [])), memory=[use])
    (shown,) = pack.unpack(pack.pack(timeline))[0]["memory"]
    assert len(shown["bytes"]) < 5_000
    assert shown["time_us"][shown["bytes"].index(5)] == pytest.approx(77.777)


def test_a_recording_of_nothing_can_be_shown() -> None:
    header, arrays = pack.unpack(pack.pack(stitch.timeline(recording([], []))))
    assert len(arrays["name"]) == 0
    assert header["spans"] == header["batches"] == header["ops"] == []


def test_the_same_timeline_gives_the_same_block(timeline: Timeline) -> None:
    assert pack.pack(timeline) == pack.pack(timeline)

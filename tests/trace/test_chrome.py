"""The Chrome trace, read again with our own parser."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nbserve.trace import chrome, stitch
from nbserve.trace.model import CATEGORIES, Timeline
from nbserve.trace.parse import read_trace
from tests.trace.gpu_traces import thin_stripes
from tests.trace.recordings import recorded

Found = list[tuple[int, int, str, str]]


@pytest.fixture
def timeline(tmp_path: Path) -> Timeline:
    return stitch.timeline(thin_stripes(tmp_path, batches=3, ops=20, workers=2))


def written(timeline: Timeline, path: Path) -> list[dict[str, Any]]:
    chrome.write(timeline, path)
    events: list[dict[str, Any]] = json.loads(path.read_bytes())["traceEvents"]
    return events


def forget_files(timeline: Timeline) -> None:
    for worker in timeline.recording["workers"]:
        Path(str(worker["trace"])).unlink()


def as_stitched(timeline: Timeline) -> Found:
    """Start, duration, name and category of each of the workers' own events."""
    events = timeline.events
    names = [events.names[i] for i in events.name]
    categories = [CATEGORIES[i] for i in events.category]
    return sorted(zip(events.start_ns.tolist(), events.duration_ns.tolist(), names, categories, strict=True))


def as_written(path: Path) -> Found:
    trace = read_trace(path)
    assert not trace.notes
    names = [trace.names[i] for i in trace.name]
    categories = [CATEGORIES[i] for i in trace.category]
    found = zip(trace.start_ns.tolist(), trace.duration_ns.tolist(), names, categories, strict=True)
    return sorted(event for event in found if event[3] != "other")


@pytest.mark.parametrize("file_name", ["trace.json", "trace.json.gz"])
@pytest.mark.parametrize("is_kept", [True, False])
def test_workers_events_come_back_as_they_were(file_name: str, is_kept: bool, tmp_path: Path) -> None:
    net = torch.nn.Linear(4, 4)

    def work(_: int) -> None:
        net(torch.ones(2, 4)).sum().backward()

    timeline = stitch.timeline(recorded(tmp_path, work, with_stack=True)[0])
    if not is_kept:
        forget_files(timeline)
    path = tmp_path / file_name
    chrome.write(timeline, path)
    assert as_written(path) == as_stitched(timeline)


@pytest.mark.parametrize("is_kept", [True, False])
def test_gpu_events_come_back_with_their_arrows(is_kept: bool, timeline: Timeline, tmp_path: Path) -> None:
    if not is_kept:
        forget_files(timeline)
    events = written(timeline, tmp_path / "trace.json")
    assert as_written(tmp_path / "trace.json") == as_stitched(timeline)
    arrows = [event for event in events if event.get("cat") == "ac2g"]
    begun = {event["id"]: event for event in arrows if event["ph"] == "s"}
    kernels = {(event["pid"], event["tid"], event["ts"]) for event in events if event.get("cat") == "kernel"}
    ended = [event for event in arrows if event["ph"] == "f"]
    assert len(ended) == len({event["id"] for event in ended}) == 2 * 3 * 22
    assert {event["id"] for event in ended} <= set(begun)
    assert kernels <= {(event["pid"], event["tid"], event["ts"]) for event in ended}


def test_workers_that_share_a_gpu_do_not_share_a_row(timeline: Timeline, tmp_path: Path) -> None:
    events = written(timeline, tmp_path / "trace.json")
    names = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    kernels = Counter(names[event["pid"]] for event in events if event.get("cat") == "kernel")
    assert kernels == {"worker 0, GPU 0": 60, "worker 1, GPU 1": 60}
    assert {"requests", "batches", "worker 0", "worker 1"} <= set(names.values())


def test_gzip_by_suffix(timeline: Timeline, tmp_path: Path) -> None:
    chrome.write(timeline, tmp_path / "a.json.gz")
    assert json.loads(gzip.decompress((tmp_path / "a.json.gz").read_bytes()))["traceEvents"]


def test_each_request_has_its_stages_and_an_arrow_to_its_batch(timeline: Timeline, tmp_path: Path) -> None:
    events = written(timeline, tmp_path / "trace.json")
    requests = [event for event in events if event.get("cat") == "request"]
    assert {event["name"] for event in requests} == {f"request {span['request_id']}" for span in timeline.spans}
    batches = {(event["tid"], event["ts"]): event["name"] for event in events if event.get("cat") == "batch"}
    ends = {event["id"]: event for event in events if event.get("cat") == "batch" and event["ph"] == "f"}
    starts = [event for event in events if event.get("cat") == "batch" and event["ph"] == "s"]
    assert len(starts) == len(timeline.spans)
    for start in starts:
        (request,) = (event for event in requests if _holds(event, start))
        end = ends[start["id"]]
        assert batches[end["tid"], end["ts"]] == f"batch {request['args']['batch_id']}"


def test_slices_of_a_row_lie_within_each_other_for_perfetto_too(timeline: Timeline, tmp_path: Path) -> None:
    events = written(timeline, tmp_path / "trace.json")
    own = [event for event in events if event.get("cat") in ("request", "stage", "batch") and event["ph"] == "X"]
    rows: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for event in own:
        # As Perfetto reads numbers.
        interval = int(event["ts"] * 1000), int(event["dur"] * 1000)
        rows.setdefault((event["pid"], event["tid"]), []).append(interval)
    for intervals in rows.values():
        stack: list[int] = []
        for start, duration in sorted(intervals, key=lambda each: (each[0], -each[1])):
            while stack and start >= stack[-1]:
                stack.pop()
            assert not stack or start + duration <= stack[-1]
            stack.append(start + duration)


def test_memory_is_a_counter(tmp_path: Path) -> None:
    timeline = stitch.timeline(recorded(tmp_path, lambda _: torch.ones(64).add(1), profile_memory=True)[0])
    counters = [event for event in written(timeline, tmp_path / "out.json") if event["ph"] == "C"]
    (use,) = timeline.memory
    assert [event["args"]["bytes"] for event in counters] == use.allocated_bytes.tolist()


def test_all_times_are_after_the_base_time(timeline: Timeline, tmp_path: Path) -> None:
    assert min(event["ts"] for event in written(timeline, tmp_path / "trace.json")) >= 0


def test_a_damaged_trace_is_copied_as_far_as_it_goes(timeline: Timeline, tmp_path: Path) -> None:
    path = Path(str(timeline.recording["workers"][0]["trace"]))
    path.write_bytes(path.read_bytes()[:-4000])
    assert 0 < len(as_written_after(timeline, tmp_path)) < len(as_stitched(timeline))
    path.write_bytes(b"nothing of it")
    assert len(as_written_after(timeline, tmp_path)) == len(as_stitched(timeline)) // 2


def as_written_after(timeline: Timeline, folder: Path) -> Found:
    chrome.write(timeline, folder / "again.json")
    return as_written(folder / "again.json")


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 20)), max_size=40))
def test_intervals_in_one_row_do_not_overlap(intervals: list[tuple[int, int]]) -> None:
    lanes, ends = chrome.Lanes(), dict[int, int]()
    for start, duration in sorted(intervals):
        row = lanes.take(start, start + duration)
        assert ends.get(row, 0) <= start
        ends[row] = start + duration
    assert len(ends) <= max((_overlapping(intervals, at) for at in range(121)), default=0) + _points(intervals)


def _overlapping(intervals: Iterable[tuple[int, int]], at: int) -> int:
    return sum(start <= at < start + duration for start, duration in intervals)


def _points(intervals: Iterable[tuple[int, int]]) -> int:
    """Requests that took no time may need a row beside those that do."""
    return int(any(duration == 0 for _, duration in intervals))


def _holds(request: dict[str, Any], event: dict[str, Any]) -> bool:
    return bool(request["tid"] == event["tid"] and request["ts"] <= event["ts"] <= request["ts"] + request["dur"])

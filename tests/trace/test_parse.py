"""Reading traces: exact times, and damage of all kinds."""

from __future__ import annotations

import gzip
import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbserve.errors import TraceError
from nbserve.trace import chrome, pack, salvage, stitch
from nbserve.trace.model import CATEGORIES
from nbserve.trace.parse import GPU, PYTHON, nanoseconds, read_trace
from tests.trace.gpu_traces import BASE_NS, GpuTrace, thin_stripes
from tests.trace.recordings import recorded, recording, worker_recording

ADD = {"ph": "X", "cat": "cpu_op", "name": "aten::add", "pid": 7, "tid": 7, "ts": 10.5, "dur": 2.25, "args": {}}


def written(folder: Path, *events: Any, **more: Any) -> Path:
    path = folder / "trace.json"
    path.write_text(json.dumps({"baseTimeNanoseconds": 1_000, "traceEvents": events} | more))
    return path


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What Kineto wrote."""
    layer = torch.nn.Linear(4, 4)
    folder = tmp_path_factory.mktemp("real")
    found, _ = recorded(folder, lambda _: layer(torch.ones(2, 4)), profile_memory=True)
    return Path(str(found["workers"][0]["trace"])).read_bytes()


@pytest.fixture(scope="module")
def many(real: bytes) -> bytes:
    """The same, so long that it is read in several chunks."""
    start = real.index(b'"traceEvents": [') + len(b'"traceEvents": [')
    end = real.rindex(b"\n  },", 0, real.index(b'"cat": "Trace"')) + len(b"\n  },")
    return real[:start] + real[start:end] * 8 + real[end:]


def test_times_are_exact_to_the_nanosecond(tmp_path: Path) -> None:
    path = written(tmp_path, ADD | {"ts": 4_628_906_309_097.245, "dur": 0.001}, baseTimeNanoseconds=BASE_NS)
    trace = read_trace(path)
    assert trace.start_ns.tolist() == [BASE_NS + 4_628_906_309_097_245]
    assert trace.duration_ns.tolist() == [1]


@given(st.integers(0, (1 << 43) * 1000 - 1))
def test_no_time_is_off_by_one(time_ns: int) -> None:
    whole, part = divmod(time_ns, 1000)
    read = float(f"{whole}.{part:03}")
    assert nanoseconds(np.array([read])).tolist() == [time_ns]


def test_columns_say_what_the_event_said(tmp_path: Path) -> None:
    arguments = {"Input Dims": [[2, 3], []], "Input type": ["c10::BFloat16", "Scalar"], "Concrete Inputs": ["", "1"]}
    trace = read_trace(written(tmp_path, ADD | {"args": arguments}))
    assert trace.names == ["aten::add"]
    assert trace.details == ["bfloat16[2,3], 1"]
    assert [CATEGORIES[i] for i in trace.category] == ["op"]
    assert trace.start_ns.tolist() == [11_500]
    assert trace.duration_ns.tolist() == [2_250]
    assert not trace.notes


def test_lanes_are_threads_python_functions_and_streams(tmp_path: Path) -> None:
    python = ADD | {"cat": "python_function", "name": "<built-in method x of T object at 0x7f1>"}
    kernel = ADD | {"cat": "kernel", "name": "gemm", "args": {"correlation": 5, "grid": [2, 1, 1], "block": [64, 1, 1]}}
    trace = read_trace(written(tmp_path, ADD, python, kernel))
    assert [lane.group for lane in trace.lanes] == [0, PYTHON, GPU]
    assert trace.names == ["aten::add", "<built-in method x of T object>", "gemm"]
    assert trace.details == ["grid 2x1x1, block 64x1x1"]
    assert trace.correlation.tolist() == [0, 0, 5]


def test_arrows_stand_in_for_missing_correlations(tmp_path: Path) -> None:
    launch = ADD | {"cat": "cuda_runtime", "name": "cudaLaunchKernel"}
    kernel = ADD | {"cat": "kernel", "name": "gemm", "pid": 0, "tid": 3, "ts": 20.125}
    arrow = {"cat": "ac2g", "name": "ac2g", "id": 9}
    begin = arrow | {"ph": "s", "pid": 7, "tid": 7, "ts": 10.5}
    end = arrow | {"ph": "f", "pid": 0, "tid": 3, "ts": 20.125, "bp": "e"}
    # An operator that begins together with its launch is none itself.
    assert read_trace(written(tmp_path, ADD, launch, kernel, begin, end)).correlation.tolist() == [0, 9, 9]


def test_memory_is_read_by_device(tmp_path: Path) -> None:
    def event(ts: float, device: int, number: int, size: int) -> dict[str, Any]:
        arguments = {"Device Type": device, "Device Id": number, "Total Allocated": size, "Bytes": 4}
        return {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "ts": ts, "args": arguments}

    trace = read_trace(written(tmp_path, event(1, 0, -1, 64), event(2, 1, 3, 100), event(3, 0, -1, 0)))
    assert {device: [column.tolist() for column in columns] for device, columns in trace.memory.items()} == {
        "cpu": [[2_000, 4_000], [64, 0]],
        "cuda:3": [[3_000], [100]],
    }


def test_gpu_trace_is_read_whole(tmp_path: Path) -> None:
    path = thin_stripes(tmp_path, batches=1, ops=50)["workers"][0]["trace"]
    trace = read_trace(str(path))
    kernels = [CATEGORIES[i] for i in trace.category].count("kernel")
    assert kernels == 50
    assert not trace.notes


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ({"ts": "soon"}, True),
        ({"ts": None}, True),
        ({"ts": 1e300}, True),
        ({"ts": [1]}, True),
        ({"dur": {}}, True),
        ({"dur": 1e18}, True),
        ({"name": 5}, True),
        ({"name": ["x"]}, True),
        ({"cat": ["cpu_op"]}, True),
        ({"pid": {}}, True),
        ({"args": 3}, True),
        ({"args": {"Input Dims": 3}}, True),
        ({"ph": {"X": 1}}, False),
        ({"cat": "something new"}, False),
        ({"args": None}, False),
        ({"args": {"Input Dims": [[1]], "Input type": 7, "Concrete Inputs": "x"}}, False),
        ({"args": {"correlation": "many"}}, False),
        ({"args": {"correlation": 10**30}}, False),
    ],
)
def test_an_event_of_wrong_types_is_left_out_and_noted(change: dict[str, Any], lost: bool, tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, ADD, ADD | change, ADD))
    names = [trace.names[i] for i in trace.name]
    assert names.count("aten::add") >= 2
    assert any("no usable name, place or time: 1." in note for note in trace.notes) == lost


@pytest.mark.parametrize("missing", ["name", "pid", "tid", "ts", "dur"])
def test_an_event_without_a_field_is_left_out_and_noted(missing: str, tmp_path: Path) -> None:
    broken = {key: value for key, value in ADD.items() if key != missing}
    trace = read_trace(written(tmp_path, broken, ADD, 5, None, "x", []))
    assert len(trace) == 1
    assert "no usable name, place or time: 5." in trace.notes[0]


def test_negative_durations_count_as_nothing(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, ADD | {"dur": -5.0}, ADD))
    assert trace.duration_ns.tolist() == [0, 2_250]
    assert "end before they begin, and count as 0: 1." in trace.notes[0]


def test_numbers_that_json_does_not_know_lose_one_event(tmp_path: Path) -> None:
    path = written(tmp_path, ADD, ADD | {"ts": math.nan}, ADD | {"dur": math.inf}, ADD)
    trace = read_trace(path)
    assert len(trace) == 2
    assert any("time: 2." in note for note in trace.notes)


def test_an_unescaped_name_loses_one_event(many: bytes, tmp_path: Path) -> None:
    place = many.index(b'"aten::addmm"', len(many) // 2)
    path = tmp_path / "trace.json"
    path.write_bytes(many[:place] + b'"aten::"addmm\\x\xff"' + many[place + len(b'"aten::addmm"') :])
    whole, damaged = len(_read(many, tmp_path)), read_trace(path)
    assert len(damaged) == whole - 1
    assert "damaged places: 1" in damaged.notes[0]


def test_base_time_may_be_missing_or_nonsense(tmp_path: Path) -> None:
    assert read_trace(written(tmp_path, ADD, baseTimeNanoseconds=None)).start_ns.tolist() == [10_500]
    trace = read_trace(written(tmp_path, ADD, baseTimeNanoseconds=10**19))
    assert trace.start_ns.tolist() == [10_500]
    assert "does not say when it was made" in trace.notes[0]


def test_a_bare_list_is_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps([ADD]))
    assert len(read_trace(path)) == 1
    path.write_text(json.dumps([ADD, ADD])[:-20])
    assert len(read_trace(path)) == 1


def test_no_events_are_no_error(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path))
    assert len(trace) == 0
    assert not trace.notes


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"hello", "no Chrome trace"),
        (b"\x00\xff", "no Chrome trace"),
        (b"{}", "is JSON, but no Chrome trace"),
        (b"[1, 2]", "is JSON, but no Chrome trace"),
        (b'{"traceEvents": 5}', "is JSON, but no Chrome trace"),
        (b'{"traceEvents": [', "ends before its first event"),
        (b'{"traceEvents": [{"ph": "X", "na', "ends before its first event"),
        (b"\x1f", "no Chrome trace"),
        (b"\x1f\x8b\x08 no gzip at all", "no Chrome trace"),
        (gzip.compress(b"", mtime=0), "no Chrome trace"),
    ],
)
def test_what_is_no_trace_is_refused_in_words(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=says):
        read_trace(path)


def test_a_missing_file_is_a_trace_error(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file"):
        read_trace(tmp_path / "trace.json")


def test_chunks_change_nothing(many: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = _read(many, tmp_path)
    monkeypatch.setattr(salvage, "_CHUNK_BYTES", len(many))
    at_once = _read(many, tmp_path)
    assert read.names == at_once.names
    assert read.start_ns.tolist() == at_once.start_ns.tolist()
    assert not read.notes


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1), packed=st.booleans())
def test_a_cut_trace_gives_what_is_whole_or_a_trace_error(
    share: float, packed: bool, many: bytes, tmp_path: Path
) -> None:
    content = gzip.compress(many, 1) if packed else many
    kept = content[: int(share * len(content))]
    try:
        trace = _read(kept, tmp_path)
    except TraceError:
        assert share < 0.2
        return
    whole = _read(many, tmp_path)
    assert len(trace) <= len(whole)
    assert trace.start_ns.tolist() == whole.start_ns[: len(trace)].tolist()
    assert bool(trace.notes) == (len(kept) < len(content))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1), junk=st.binary(min_size=1, max_size=30), packed=st.booleans())
def test_junk_in_the_middle_raises_nothing_else(
    at: float, junk: bytes, packed: bool, real: bytes, tmp_path: Path
) -> None:
    content = gzip.compress(real, 1) if packed else real
    place = int(at * len(content))
    with suppress(TraceError):
        _read(content[:place] + junk + content[place + len(junk) :], tmp_path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["ph", "cat", "name", "pid", "tid", "ts", "dur", "args", "id"])
ARGUMENTS = st.dictionaries(st.sampled_from(["Input Dims", "Input type", "correlation", "grid", "Device Type"]), VALUES)
CATEGORY_TEXTS = st.sampled_from(["cpu_op", "kernel", "gpu_memcpy", "cuda_runtime", "python_function", "ac2g", "new"])


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    changes=st.lists(st.dictionaries(FIELDS, VALUES | ARGUMENTS, max_size=3), min_size=1, max_size=4),
    phase=st.sampled_from(["X", "i", "M", "s", "f"]),
    category=CATEGORY_TEXTS,
    base=VALUES,
)
def test_no_values_break_anything(
    changes: list[dict[str, Any]], phase: str, category: str, base: Any, tmp_path: Path
) -> None:
    events = [ADD | {"ph": phase, "cat": category, "id": 3} | change for change in changes]
    path = written(tmp_path, *events, baseTimeNanoseconds=base)
    with suppress(TraceError):
        read_trace(path)
    # What can be read can be shown, and written again.
    timeline = stitch.timeline(recording([worker_recording(path)], []))
    pack.pack(timeline)
    chrome.write(timeline, tmp_path / "again.json")
    if len(timeline.events):
        read_trace(tmp_path / "again.json")


def test_half_characters_lose_one_event(tmp_path: Path) -> None:
    path = written(tmp_path, ADD | {"name": "half \ud800"}, ADD)
    trace = read_trace(path)
    assert trace.names == ["aten::add"]
    assert "damaged places: 1" in trace.notes[0]


def test_a_cut_gpu_trace_keeps_its_first_kernels(tmp_path: Path) -> None:
    trace = GpuTrace()
    trace.batch(1, 1, lambda: [trace.op("aten::add", "add_kernel", 2.0, [[1]]) for _ in range(20)])
    text = json.dumps(trace.trace())
    read = _read(text[: len(text) // 2].encode(), tmp_path)
    assert 0 < [CATEGORIES[i] for i in read.category].count("kernel") < 20


def _read(content: bytes, folder: Path) -> Any:
    path = folder / "read.json"
    path.write_bytes(content)
    return read_trace(path)

"""The table of operators against torch's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nbserve.trace import ops, stitch
from nbserve.trace.model import OpRow
from tests.trace.gpu_traces import thick_bars, thin_stripes
from tests.trace.recordings import recorded

Totals = dict[str, tuple[int, float, float]]


class Net(torch.nn.Module):
    """Attention, convolutions, normalisation, a loop and an in-place op: names repeat, nest, and nest in themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.BatchNorm2d(8), torch.nn.GELU())
        self.encoder = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = torch.nn.Linear(8, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.encoder(self.stem(images).flatten(2).transpose(1, 2))
        for _ in range(3):
            tokens = torch.cat([tokens, tokens.mean(1, keepdim=True)], 1).add_(1)
        return self.head(tokens).softmax(-1)


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net()


def inferring(net: Net) -> Any:
    def work(batch_id: int) -> None:
        with torch.no_grad():
            net(torch.ones(1 + batch_id, 3, 16, 16)).tolist()

    return work


def learning(net: Net) -> Any:
    def work(batch_id: int) -> None:
        net(torch.ones(1 + batch_id, 3, 16, 16)).square().sum().backward()

    return work


def ours(rows: list[OpRow]) -> Totals:
    return {row.name: (row.calls, row.self_us, row.total_us) for row in rows}


def theirs(profile: Any) -> Totals:
    """torch's table, its rows of single batches added up."""
    totals: dict[str, tuple[int, float, float]] = {}
    for row in profile.key_averages():
        name = ops.row_name(row.key)
        calls, self_us, total_us = totals.get(name, (0, 0.0, 0.0))
        totals[name] = calls + row.count, self_us + row.self_cpu_time_total, total_us + row.cpu_time_total
    return totals


@pytest.mark.parametrize("work", [inferring, learning])
@pytest.mark.parametrize("memory", [False, True])
def test_totals_are_those_of_key_averages(work: Any, memory: bool, net: Net, tmp_path: Path) -> None:
    recording, profile = recorded(tmp_path, work(net), profile_memory=memory)
    found, expected = ours(ops.table(stitch.timeline(recording))), theirs(profile)
    expected.pop("[memory]", None)
    assert set(found) == set(expected)
    for name, (calls, self_us, total_us) in expected.items():
        assert found[name][0] == calls, name
        assert found[name][1:] == pytest.approx((self_us, total_us), abs=0.01), name


@pytest.mark.alone
def test_python_functions_have_their_own_track_and_do_not_change_the_table(net: Net, tmp_path: Path) -> None:
    recording, profile = recorded(tmp_path, inferring(net), with_stack=True)
    timeline = stitch.timeline(recording)
    python = {i for i, track in enumerate(timeline.tracks) if track.name.endswith(", Python")}
    assert len(python) == 1
    names = {timeline.events.names[i] for i in timeline.events.name[timeline.events.track == min(python)]}
    assert any("forward" in name for name in names)
    assert not any(" at 0x" in name for name in names)
    expected = {name: calls for name, (calls, _, _) in theirs(profile).items() if name.startswith("aten::")}
    found = {name: calls for name, (calls, _, _) in ours(ops.table(timeline)).items()}
    # Between an operator and its repetition torch sees a Python function here, and counts them as two.
    assert {name for name in found if name.startswith("aten::")} == set(expected)
    assert not names & set(found)


def test_shares_of_a_device_add_up_to_one(net: Net, tmp_path: Path) -> None:
    recording, _ = recorded(tmp_path, inferring(net))
    rows = ops.table(stitch.timeline(recording))
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert [row.self_us for row in rows] == sorted((row.self_us for row in rows), reverse=True)


def test_shapes_are_those_that_took_most_of_the_time(tmp_path: Path) -> None:
    small, large = torch.ones(2, 2), torch.ones(256, 256)
    recording, _ = recorded(tmp_path, lambda _: (small @ small, large @ large))
    rows = {row.name: row for row in ops.table(stitch.timeline(recording))}
    assert rows["aten::mm"].shapes == "float32[256,256], float32[256,256]"


def test_kernels_are_grouped_by_name(tmp_path: Path) -> None:
    rows = ops.table(stitch.timeline(thin_stripes(tmp_path, batches=2, ops=40)))
    kernels = [row for row in rows if row.device == "gpu" and "elementwise" in row.name]
    assert [row.calls for row in kernels] == [20] * 4
    assert sum(row.self_us for row in kernels) == pytest.approx(sum(1.5 + i % 3 * 0.4 for i in range(40)) * 2)
    assert sum(row.share for row in rows if row.device == "gpu") == pytest.approx(1)


def test_launches_count_on_the_host_and_what_they_start_on_the_gpu(tmp_path: Path) -> None:
    rows = {(row.name, row.device): row for row in ops.table(stitch.timeline(thick_bars(tmp_path, batches=2, ops=4)))}
    assert rows["cudaLaunchKernel", "cpu"].calls == 8
    matmul = rows["ampere_sgemm_128x128_tn", "gpu"]
    assert (matmul.calls, matmul.self_us, matmul.total_us) == (8, 20_000, 20_000)
    assert matmul.share > 0.98
    assert ("nbserve.batch", "gpu") not in rows


def test_a_recording_without_a_trace_has_an_empty_table(tmp_path: Path) -> None:
    recording, _ = recorded(tmp_path, lambda _: None, batches=1)
    recording["workers"][0]["trace"] = None
    assert ops.table(stitch.timeline(recording)) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nbserve.batch 17", "nbserve.batch"),
        ("ProfilerStep#3", "ProfilerStep*"),
        ("nbserve.batched", "nbserve.batched"),
        ("aten::mm", "aten::mm"),
    ],
)
def test_numbered_annotations_are_one_row(name: str, expected: str) -> None:
    assert ops.row_name(name) == expected

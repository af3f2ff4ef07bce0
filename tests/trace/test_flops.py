"""Operations per call, against torch's own counter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from nbserve.trace import stitch
from nbserve.trace.flops import flops_by_event, flops_of, type_of
from tests.trace.recordings import recorded


def image(*shape: int) -> torch.Tensor:
    return torch.ones(shape)


def heads(tokens: int) -> torch.Tensor:
    return torch.ones(2, 4, tokens, 16)


WORK: dict[str, Callable[[], object]] = {
    "mm": lambda: image(3, 5) @ image(5, 7),
    "bmm": lambda: image(2, 3, 5) @ image(2, 5, 7),
    "baddbmm": lambda: torch.baddbmm(image(2, 3, 7), image(2, 3, 5), image(2, 5, 7)),
    "linear": lambda: functional.linear(image(2, 3, 5), image(7, 5), image(7)),
    "linear in 2d": lambda: functional.linear(image(3, 5), image(7, 5), image(7)),
    "conv1d": lambda: functional.conv1d(image(2, 4, 9), image(6, 4, 3), padding=2, dilation=2),
    "conv2d": lambda: functional.conv2d(image(2, 4, 9, 11), image(6, 4, 3, 5), image(6), stride=(2, 1), padding=1),
    "conv2d in groups": lambda: functional.conv2d(image(2, 4, 9, 9), image(8, 2, 3, 3), groups=2),
    "conv2d by depth": lambda: functional.conv2d(image(1, 8, 9, 9), image(8, 1, 3, 3), groups=8),
    "conv3d": lambda: functional.conv3d(image(1, 2, 5, 6, 7), image(3, 2, 2, 2, 2)),
    "transposed": lambda: functional.conv_transpose2d(image(2, 4, 5, 6), image(4, 3, 3, 3), stride=2),
    "nothing": lambda: image(3, 5).relu().sum(),
}


@pytest.mark.parametrize("name", WORK)
def test_operations_are_those_that_torch_counts(name: str, tmp_path: Path) -> None:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        WORK[name]()

    def work(_: int) -> None:
        with torch.no_grad():
            WORK[name]()

    events = stitch.timeline(recorded(tmp_path, work, batches=2)[0]).events
    assert flops_by_event(events).sum() == 2 * counter.get_total_flops()


@pytest.mark.parametrize("tokens", [6, 9])
def test_fused_attention_is_counted_as_its_matrix_products(tokens: int, tmp_path: Path) -> None:
    query, key = heads(6), heads(tokens)

    def work(_: int) -> None:
        with torch.no_grad():
            functional.scaled_dot_product_attention(query, key, key, is_causal=tokens == 6)

    # torch's counter does not know the kernel for the CPU, but it knows those for GPUs.
    expected = sdpa_flop_count(query.shape, key.shape, key.shape)
    events = stitch.timeline(recorded(tmp_path, work, batches=2)[0]).events
    assert flops_by_event(events).sum() == 2 * expected


def test_a_model_and_its_gradients(tmp_path: Path) -> None:
    model = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def work(_: int) -> None:
        model(image(3, 5, 16)).sum().backward()

    with FlopCounterMode(display=False) as counter:
        work(0)
    events = stitch.timeline(recorded(tmp_path, work, batches=1)[0]).events
    assert flops_by_event(events).sum() == counter.get_total_flops()


def test_only_the_innermost_operator_counts(tmp_path: Path) -> None:
    events = stitch.timeline(
        recorded(tmp_path, lambda _: functional.linear(image(3, 5), image(7, 5), image(7)))[0]
    ).events
    flops = flops_by_event(events)
    counted = {events.names[i] for i in events.name[np.flatnonzero(flops)]}
    assert counted == {"aten::addmm"}
    linear = list(events.names).index("aten::linear")
    assert flops_of("aten::linear", events.details[events.detail[events.name == linear][0]]) == 2 * 3 * 5 * 7


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("aten::mm", ""),
        ("aten::mm", "float32[2,3]"),
        ("aten::mm", "float32[2,3], Scalar"),
        ("aten::addmm", "None, None, None"),
        ("aten::convolution", "float32[1,2,3,3], float32[2,2,1,1], None, ScalarList, ScalarList"),
        ("aten::relu", "float32[2,3]"),
        ("void gemm<float>(float*)", "grid 2x1x1, block 64x1x1"),
    ],
)
def test_what_is_not_known_counts_nothing(name: str, detail: str) -> None:
    assert flops_of(name, detail) == 0


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        ("bfloat16[2,3], float32[3]", "bfloat16"),
        ("[2, 3], None, float16[1]", "float16"),
        ("[float32[2,3], float32[2,3]], 1", ""),
        ("", ""),
    ],
)
def test_the_type_is_that_of_the_first_tensor(detail: str, expected: str) -> None:
    assert type_of(detail) == expected

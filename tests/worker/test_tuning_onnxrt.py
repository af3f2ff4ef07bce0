"""ONNX Runtime as a backend: the graph as a function of what changes, and a real session where it is installed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from nbserve.worker.tuning.onnxrt import Frozen, onnxrt

INSTALLED = all(importlib.util.find_spec(name) for name in ("onnxruntime", "onnxscript"))
pytestmark = [pytest.mark.process, pytest.mark.filterwarnings("ignore")]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> Any:
        return self.norm(self.linear(x)).relu() * scale, x.shape[0] * x.sum()


@pytest.fixture
def net() -> Iterator[Net]:
    torch._dynamo.reset()
    yield Net().eval()
    torch._dynamo.reset()


def check(net: Net, backend: Callable[..., Any]) -> None:
    call = torch.compile(net.forward, backend=backend)
    with torch.inference_mode():
        for size in (1, 2, 3, 5):
            arguments = torch.randn(size, 4), torch.randn(4)
            torch.testing.assert_close(call(*arguments), net(*arguments))


def test_weights_are_constants_and_sizes_stay_open(net: Net) -> None:
    made: list[Frozen] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        frozen = Frozen(graph, inputs)
        made.append(frozen)
        return lambda *arguments: frozen(*(arguments[index] for index in frozen.taken))

    check(net, backend)
    assert [[list(sizes) for sizes in frozen.open_sizes] for frozen in made] == [[[], []], [[0], []]]
    assert all(len(list(frozen.buffers())) == 6 for frozen in made)


@pytest.mark.skipif(not INSTALLED and "CI" not in os.environ, reason="onnxruntime and onnxscript are not installed")
def test_a_session_gives_what_torch_gives(net: Net) -> None:
    check(net, onnxrt)

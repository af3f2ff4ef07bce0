"""Code compiled in the proof of an export, served by a machine that has no compiler."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nbserve.bundle.bundle import GOLDEN, Bundle, Golden, golden_text
from nbserve.export.cleanroom import CleanServer
from nbserve.export.proof import prove
from nbserve.replay import replay
from tests.worker.conftest import needs_compiler

COMPILED = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor([2.0]))

    def forward(self, x):
        return torch.tanh(x * self.scale)

net = Net()

class H(nbserve.Handler):
    def initialize(self, context):
        self.model = net
"""


@pytest.mark.process
@needs_compiler
def test_compiled_code_goes_along_and_needs_no_compiler_where_it_comes(
    make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = make_bundle(COMPILED, compile="inductor", max_batch_size=1)
    # Two numbers are one row: a batch of one, whose tanh is vectorized.
    pairs = [Golden(b"[0.5, 0.0]", "application/json", 200, json.dumps([0.7615942, 0.0]).encode(), "application/json")]
    assert prove(bundle.path, pairs) == 1
    assert not (bundle.path / GOLDEN).exists()
    (kept,) = (bundle.path / "cache").iterdir()
    before = sorted(kept.iterdir())
    (bundle.path / GOLDEN).write_text(golden_text(pairs))
    folder = tmp_path / "clean"
    folder.mkdir()
    with CleanServer(bundle.path, folder, [], {"PATH": "/nonexistent"}) as server:
        replay(f"{server.ready(300)}/predictions/h", pairs).raise_for_difference()
        assert server.stop() == []
    said = (folder / "server.log").read_text()
    assert f"it uses what was compiled before the bundle was shipped, for {kept.name}" in said
    assert "compiled by inductor in" in said
    assert sorted(kept.iterdir()) == before

"""A real server's recording: every operator lies inside the batch of its request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nbserve.trace import ops
from nbserve.trace.model import CATEGORIES
from nbserve.trace.parse import read_trace
from nbserve.verbs import Endpoint
from tests.server.conftest import Load

pytestmark = pytest.mark.process

HANDLER = """
import torch
from torch import nn

class H(nbserve.Handler):
    def initialize(self, context):
        self.model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))

    def preprocess(self, requests):
        return torch.tensor(requests, dtype=torch.float32)

    def inference(self, inputs):
        outputs = self.model(inputs.sin())
        outputs.sum().backward()
        return outputs

    def postprocess(self, outputs):
        return outputs.detach().flatten().tolist()
"""


@pytest.mark.parametrize("stacks", [False, True])
def test_every_op_lies_inside_its_requests_batch(
    stacks: bool, serve_cell: Callable[..., Endpoint], tmp_path: Path
) -> None:
    body = [0.5] * 8
    endpoint = serve_cell(HANDLER, workers=2, max_batch_size=4)
    assert endpoint.predict(body)
    with Load(endpoint.url, clients=6, body=body) as load:
        load.wait_for(20)
        profile = endpoint.profile(batches=20, worker="all", stacks=stacks)
    timeline = profile.timeline
    events = timeline.events
    assert not timeline.notes
    recorded = [i for i, batch in enumerate(timeline.batches) if batch.is_recorded]
    assert len(recorded) >= 20
    assert {timeline.batches[i].worker for i in recorded} == {0, 1}

    # The annotation of a batch is around all of it, and so begins a little before.
    own = np.flatnonzero(events.category == CATEGORIES.index("op"))
    batches = [timeline.batches[i] for i in events.batch[own]]
    assert (events.batch[own] >= 0).all()
    assert (events.start_ns[own] >= [batch.taken_ns for batch in batches]).all()
    assert (events.start_ns[own] + events.duration_ns[own] <= [batch.encoded_ns for batch in batches]).all()
    workers = np.array([track.worker for track in timeline.tracks])[events.track[own]]
    assert (workers == [batch.worker for batch in batches]).all()

    for i in recorded:
        names = {events.names[name] for name in events.name[events.batch == i]}
        assert {f"nbserve.batch {timeline.batches[i].batch_id}", "aten::sin", "AddmmBackward0"} <= names
        for span in (timeline.spans[number] for number in timeline.batches[i].spans):
            assert span["received_ns"] <= timeline.batches[i].taken_ns
            assert span["batch_id"] == timeline.batches[i].batch_id
    rows = {row.name: row for row in ops.table(timeline)}
    assert rows["nbserve.batch"].calls == len(recorded)

    profile.save(tmp_path / "trace.json.gz")
    again = read_trace(tmp_path / "trace.json.gz")
    assert not again.notes
    assert sum(name.startswith("nbserve.batch") for name in np.array(again.names)[again.name]) == len(recorded)

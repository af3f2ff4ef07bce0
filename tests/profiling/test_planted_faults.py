"""Real handlers with one fault each, on a real server, recorded as users do: the fault comes first in the diagnosis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nbserve.profiling.profile import Profile
from nbserve.server.machine import this_machine
from nbserve.trace.model import Finding
from nbserve.verbs import Endpoint
from tests.server.conftest import Load

pytestmark = [pytest.mark.process, pytest.mark.alone]

BATCHES = 30
IMPORTS = "import time\nimport numpy as np\nimport torch\nfrom torch import nn\n\n"
NET = """
class H(nbserve.Handler):
    def initialize(self, context):
        layers = [layer for _ in range({layers}) for layer in (nn.Linear({width}, {width}), nn.ReLU())]
        self.model = nn.Sequential(*layers).eval()
"""
LARGE = NET.format(layers=6, width=1024)
SMALL = NET.format(layers=2, width=256)
LARGE_BODY = [0.5] * 1024
SMALL_BODY = [0.5] * 256


@pytest.fixture
def profiled(serve_cell: Callable[..., Endpoint]) -> Callable[..., Profile]:
    """Serve a cell, warm it up, and profile it under one client's requests, or those of several."""

    def profile(text: str, body: Any, *, clients: int = 1, warm: int = 8, **settings: Any) -> Profile:
        # On a busy machine two threads may wait for each other, which is a finding of its own.
        endpoint = serve_cell(IMPORTS + text, **{"threads_per_worker": 1, **settings})
        for _ in range(warm):
            endpoint.predict(body)
        if clients == 1:
            return endpoint.profile(batches=BATCHES, request=body)
        with Load(endpoint.url, clients=clients, body=body) as load:
            load.wait_for(2 * clients)
            return endpoint.profile(batches=BATCHES)

    return profile


def first(profile: Profile, beside: str = "") -> Finding:
    """The finding that comes first, but for one that is about the machine; every one of them must be complete."""
    for finding in profile.findings:
        assert all((finding.figure, finding.why, finding.fix)), finding
        assert finding.expected_gain >= 1.0, finding
    return next(finding for finding in profile.findings if finding.name != beside)


def test_a_clean_model_raises_no_alarm(profiled: Callable[..., Profile]) -> None:
    [finding] = profiled(LARGE, LARGE_BODY).findings
    if finding.name != "fp32-matmul":
        assert finding.name == "nothing-to-fix"
        assert "bound by matmul at " in finding.figure
        assert "of this CPU's peak" in finding.figure


def test_a_handler_that_does_nothing_raises_no_alarm(profiled: Callable[..., Profile]) -> None:
    echo = "class H(nbserve.Handler):\n    def handle(self, requests, context):\n        return requests\n"
    [finding] = profiled(echo, [1.0, 2.0]).findings
    assert finding.name == "nothing-to-fix"


def test_a_small_model_raises_no_alarm(profiled: Callable[..., Profile]) -> None:
    [finding] = profiled(NET.format(layers=2, width=32), [0.5] * 32).findings
    assert finding.name == "nothing-to-fix"


def test_a_handler_without_torch_raises_no_alarm(profiled: Callable[..., Profile]) -> None:
    text = """
class H(nbserve.Handler):
    def handle(self, requests, context):
        squares = np.random.rand(400, 400)
        return [float((squares @ squares).sum()) for _ in requests]
"""
    [finding] = profiled(text, 1).findings
    assert finding.name == "nothing-to-fix"


def test_autograd_left_on(profiled: Callable[..., Profile]) -> None:
    text = LARGE + "    def inference(self, batch):\n        return self.model(batch).detach()\n"
    profile = profiled(text, LARGE_BODY)
    # A processor that computes bfloat16 gains more by that.
    finding = first(profile, beside="fp32-matmul")
    assert finding.name == "autograd"
    assert finding.settings == {"inference_mode": True}


def test_five_hundred_tiny_operators(profiled: Callable[..., Profile]) -> None:
    text = """
class H(nbserve.Handler):
    def initialize(self, context):
        self.weight = torch.ones(64)

    def inference(self, batch):
        with torch.inference_mode():
            for _ in range(250):
                batch = batch * self.weight + self.weight
            return batch
"""
    finding = first(profiled(text, [0.5] * 64))
    assert finding.name == "launch-bound"
    assert finding.settings == {"compile": "inductor"}


def test_a_sleep_in_preprocess(profiled: Callable[..., Profile]) -> None:
    text = LARGE + (
        "    def preprocess(self, requests):\n        time.sleep(0.02)\n        return super().preprocess(requests)\n"
    )
    finding = first(profiled(text, LARGE_BODY))
    assert finding.name == "slow-preprocess"
    # The cell's line, counted from its %%serve line.
    line = 1 + (IMPORTS + text).splitlines().index("        time.sleep(0.02)") + 1
    assert f"H.preprocess, line {line} (" in finding.fix


def test_preprocessing_number_by_number(profiled: Callable[..., Profile]) -> None:
    text = (
        SMALL
        + """
    def preprocess(self, requests):
        batch = torch.zeros(len(requests), 256)
        for row, request in enumerate(requests):
            for column, value in enumerate(request):
                batch[row, column] = value * 2 - 1
        return batch
"""
    )
    finding = first(profiled(text, SMALL_BODY, clients=4))
    assert finding.name == "slow-preprocess"
    assert finding.settings == {}


def test_a_window_that_is_too_long(profiled: Callable[..., Profile]) -> None:
    finding = first(profiled(LARGE, LARGE_BODY, max_batch_delay_ms=50.0))
    assert finding.name == "batch-wait"
    assert finding.settings == {"policy": "adaptive"}


def test_more_threads_than_cores(profiled: Callable[..., Profile]) -> None:
    profile = profiled(LARGE, LARGE_BODY, threads_per_worker=8 * _cores())
    finding = first(profile)
    assert finding.name == "oversubscribed-threads"
    assert finding.settings == {"threads_per_worker": _cores()}


def test_threads_that_the_handler_sets_itself(profiled: Callable[..., Profile]) -> None:
    text = LARGE + f"        torch.set_num_threads({8 * _cores()})\n"
    finding = first(profiled(text, LARGE_BODY))
    assert finding.name == "oversubscribed-threads"
    assert "set_num_threads" in finding.fix


def test_a_model_left_in_train_mode(profiled: Callable[..., Profile]) -> None:
    text = """
class H(nbserve.Handler):
    def initialize(self, context):
        self.net = nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), nn.Dropout(0.5), nn.Linear(1024, 1024))

    def inference(self, batch):
        with torch.inference_mode():
            return self.net(batch)
"""
    finding = first(profiled(text, LARGE_BODY))
    assert finding.name == "train-mode"
    assert "Dropout" in finding.figure
    assert "self.net.eval() in H.initialize" in finding.fix


def test_numbers_taken_out_one_by_one(profiled: Callable[..., Profile]) -> None:
    text = (
        SMALL
        + """
    def postprocess(self, outputs):
        return [[value.item() for value in row.repeat(16)] for row in outputs]
"""
    )
    finding = first(profiled(text, SMALL_BODY))
    assert finding.name == "item-syncs"
    assert "H.postprocess" in finding.fix


def test_weights_converted_for_each_batch(profiled: Callable[..., Profile]) -> None:
    text = """
class H(nbserve.Handler):
    def initialize(self, context):
        self.weight = torch.rand(1024, 1024).double()

    def inference(self, batch):
        with torch.inference_mode():
            return batch @ self.weight.float()
"""
    assert first(profiled(text, LARGE_BODY)).name == "copies"


def test_a_queue_of_batches_that_may_not_grow(profiled: Callable[..., Profile]) -> None:
    text = """
class H(nbserve.Handler):
    def inference(self, batch):
        time.sleep(0.01)
        return batch
"""
    finding = first(profiled(text, [1.0], clients=6, max_batch_size=1))
    assert finding.name == "small-batches"
    assert finding.settings == {"max_batch_size": 4}


def test_python_between_the_operators(profiled: Callable[..., Profile]) -> None:
    text = (
        SMALL
        + """
    def inference(self, batch):
        with torch.inference_mode():
            outputs = self.model(batch)
        return outputs + sum(i * i for i in range(200_000)) * 0
"""
    )
    assert first(profiled(text, SMALL_BODY)).name == "slow-python"


def test_large_bodies(profiled: Callable[..., Profile]) -> None:
    text = """
class H(nbserve.Handler):
    def handle(self, requests, context):
        return [len(request) for request in requests]
"""
    finding = first(profiled(text, np.zeros(16 << 20, np.uint8).tobytes()))
    assert finding.name == "ipc"
    assert "16.8 MB" in finding.figure


def test_a_cold_first_call_does_not_distort_the_others(profiled: Callable[..., Profile]) -> None:
    text = (
        LARGE
        + """
        self.is_warm = False

    def inference(self, batch):
        if not self.is_warm:
            time.sleep(1.0)
            self.is_warm = True
        return super().inference(batch)
"""
    )
    found = {finding.name: finding for finding in profiled(text, LARGE_BODY, warm=0).findings}
    assert "cold-start" in found
    assert found.keys() <= {"cold-start", "fp32-matmul"}
    assert "H.initialize" in found["cold-start"].fix


def _cores() -> int:
    return this_machine().cores

"""What a measurement leaves behind: nothing, or the next one would pay for it."""

from __future__ import annotations

import pytest

from nbserve.profiling.generator import LoadGenerator
from nbserve.profiling.requests import recorded
from nbserve.tune.meter import meter
from nbserve.tune.points import Ask, Goal, Load, Settings

pytestmark = pytest.mark.process

# A full batch goes on for longer than anybody waits for it.
SLOW = """\
import time
class H(nbserve.Handler):
    def inference(self, batch):
        time.sleep(0.2 * len(batch))
        return batch
"""


def test_too_high_a_rate_leaves_no_work_to_the_next_measurement(serve_cell):
    endpoint = serve_cell(SLOW)
    endpoint.predict([1])
    settings, goal = Settings(max_batch_size=8), Goal(50.0, rate=30.0)
    with (
        LoadGenerator(recorded(endpoint)) as generator,
        meter(endpoint, settings, generator, goal, lambda text: None) as measured,
    ):
        found = measured.measure(Ask(settings, Load(rate=30.0), 1.0, 0.2, "too much"))
        assert found.errors or found.is_behind
        status = measured.status()
    assert status["queued"] == 0
    assert [worker["state"] for worker in status["workers"]] == ["READY"]

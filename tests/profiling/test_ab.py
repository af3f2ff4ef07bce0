"""Settings tried out on real workers: what helps, what does not, what changes the answers; and that nothing stays."""

from __future__ import annotations

import pytest

from nbserve.errors import ConfigError, ProfileError, StartError

pytestmark = [pytest.mark.process, pytest.mark.alone]

CELL = """\
import torch
class H(nbserve.Handler):
    def initialize(self, context):
        torch.manual_seed(0)
        self.model = torch.nn.Linear(4, 4).eval()
    def inference(self, batch):
        return self.model(torch.tensor(batch, dtype=torch.float32))
    def postprocess(self, out):
        return out.tolist()
"""
# Autograd notes each of many small operators, and keeps what they made.
GRAD = CELL.replace(
    "return self.model(torch.tensor(batch, dtype=torch.float32))",
    """x = self.model(torch.tensor(batch, dtype=torch.float32))
        for _ in range(600):
            x = x * self.model.bias + x
        return x""",
)
# The same weights in each worker, but not the same dropout.
RANDOM = CELL.replace(
    "torch.nn.Linear(4, 4).eval()", "torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.Dropout()); torch.seed()"
)
BODY = [1.0] * 4


def trials(endpoint):
    return endpoint.stats()["trials"]


def test_a_window_that_waits_too_long_is_slower(serve_cell, wait_until):
    endpoint = serve_cell(CELL, policy="window", max_batch_delay_ms=50.0)
    endpoint.predict(BODY)
    before = len(endpoint.spans())
    found = endpoint.ab("policy=adaptive", seconds=2, apply=True)
    assert found.verdict == "faster"
    assert found.speedup > 2
    assert found.interval[0] > 2
    assert found.latency_ms["current"] > 50 > found.latency_ms["changed"]
    assert found.measure == "median latency"
    assert (found.max_difference, found.has_same_answers, found.is_applied) == (0.0, True, True)
    assert endpoint.settings["policy"] == "adaptive"
    assert "applied: " in repr(found)
    assert len(endpoint.spans()) == before
    wait_until(lambda: trials(endpoint) == [])


def test_a_setting_that_changes_nothing_is_no_gain(serve_cell):
    endpoint = serve_cell(CELL)
    endpoint.predict(BODY)
    found = endpoint.ab({"queue_size": 500}, seconds=3, clients=2, apply=True)
    assert found.verdict == "no gain"
    assert found.interval[0] < 1.02
    assert (found.clients, found.measure) == (2, "throughput")
    assert endpoint.settings["queue_size"] == 1024
    assert "no gain" in repr(found)
    assert "nothing was changed" in repr(found)
    with pytest.raises(ProfileError, match="queue_size=500: no gain, so nothing is applied"):
        found.apply()


def test_what_a_profile_proposes_is_tried_by_its_number_and_name(serve_cell):
    endpoint = serve_cell(GRAD)
    endpoint.predict(BODY)
    profile = endpoint.profile(batches=30)
    number = next(i for i, finding in enumerate(profile.findings, 1) if finding.settings.get("inference_mode"))
    found = endpoint.ab(number, seconds=6)
    assert (dict(found.settings), found.verdict) == ({"inference_mode": True}, "faster")
    assert found.has_same_answers
    assert endpoint.settings["inference_mode"] is False
    by_name = endpoint.ab(profile.findings[number - 1].name, seconds=0.5)
    assert by_name.settings == found.settings


def test_answers_that_differ_are_told(serve_cell):
    endpoint = serve_cell(CELL)
    endpoint.predict(BODY)
    found = endpoint.ab("dtype=bfloat16", seconds=0.5)
    assert 0 < found.max_difference < 0.1
    assert "answers differ by at most" in repr(found)


def test_random_answers_are_told_for_what_they_are(serve_cell):
    endpoint = serve_cell(RANDOM)
    endpoint.predict(BODY)
    found = endpoint.ab("inference_mode", seconds=0.5)
    assert found.max_difference > 0
    assert found.own_difference.largest > 0
    assert "a layer in train mode?" in repr(found)


def test_what_does_not_start_or_fails_is_told(serve_cell, wait_until):
    endpoint = serve_cell(CELL)
    endpoint.predict(BODY)
    with pytest.raises(StartError):
        endpoint.ab("compile=nonesuch", seconds=1)
    with pytest.raises(ConfigError, match="did you mean"):
        endpoint.ab("thread_per_worker=1")
    with pytest.raises(ProfileError, match="status 400, the body is no array of numbers"):
        endpoint.ab("inference_mode", seconds=1, requests=[{"no": "vector"}])
    wait_until(lambda: trials(endpoint) == [])
    assert endpoint.predict(BODY)


@pytest.mark.parametrize("moment", ["starting workers with inference_mode", "comparing answers", "comparing: block"])
def test_an_interrupt_leaves_no_trial_behind(serve_cell, wait_until, moment):
    endpoint = serve_cell(CELL)
    endpoint.predict(BODY)

    def interrupt(text: str) -> None:
        if text.startswith(moment):
            assert trials(endpoint)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        endpoint.ab("inference_mode", seconds=60, on_progress=interrupt)
    wait_until(lambda: trials(endpoint) == [])
    assert endpoint.predict(BODY)


def test_an_endpoint_that_stops_meanwhile_is_told(serve_cell):
    endpoint = serve_cell(CELL, name="leaves")
    endpoint.predict(BODY)

    def stop(text: str) -> None:
        if text.startswith("comparing: block pair 2"):
            endpoint.stop()

    with pytest.raises(ProfileError, match="was the endpoint stopped meanwhile"):
        endpoint.ab("inference_mode", seconds=60, on_progress=stop)
    serve_cell(CELL, name="leaves")


def test_without_requests_or_findings_it_says_what_to_do(serve_cell):
    endpoint = serve_cell(CELL)
    with pytest.raises(ProfileError, match="no request of it was recorded"):
        endpoint.ab("inference_mode")
    endpoint.predict(BODY)
    with pytest.raises(ProfileError, match="no setting and no finding 'nonsense'; the last profile found 1"):
        endpoint.ab("nonsense")

"""Auto-tune of real endpoints: what it finds, that the endpoint does not notice, and all ways in which it can end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nbserve import cli
from nbserve.errors import AutoTuneError, ProfileError, ServerGone

pytestmark = [pytest.mark.process, pytest.mark.alone]

# Nearly all of a batch's time does not depend on its size, and takes no core.
WAITS = """\
import time
class H(nbserve.Handler):
    def inference(self, batch):
        time.sleep(0.02 + 0.0005 * len(batch))
        return batch
"""
FAILS = """\
class H(nbserve.Handler):
    def inference(self, batch):
        raise ValueError("no such thing")
"""
FAILS_IN_COMPANY = """\
import time
class H(nbserve.Handler):
    def handle(self, batch, context):
        time.sleep(0.01)
        if len(batch) > 4:
            return [nbserve.Error(500, "too many")] * len(batch)
        return batch
"""
SECONDS = 20.0


def trials(endpoint: Any) -> Any:
    return endpoint.stats()["trials"]


def test_it_finds_larger_batches_and_changes_nothing_before_it_is_told_to(serve_cell, wait_until):
    endpoint = serve_cell(WAITS, max_batch_size=1)
    endpoint.predict([1])
    before, asked, told = endpoint.settings, endpoint.stats()["requests"], []
    found = endpoint.tune(500, seconds=SECONDS, on_progress=told.append)
    assert found.verdict == "faster", found.text
    assert found.interval[0] > 1.5
    assert found.best.settings.max_batch_size > 1
    assert found.best.p99_ms <= 500
    assert found.proof.best.p99_ms <= 500
    assert found.best in found.points
    assert set(map(id, found.frontier)) <= set(map(id, found.points))
    assert (endpoint.settings, endpoint.stats()["requests"]) == (before, asked)
    assert any("the current settings: 1 worker, batch 1, adaptive" in text for text in told)
    assert any("proving" in text for text in told)
    wait_until(lambda: trials(endpoint) == [])
    applied = found.apply()
    assert applied["max_batch_size"] == found.best.settings.max_batch_size == endpoint.settings["max_batch_size"]
    assert endpoint.predict([2]) == [2]


def test_a_rate_is_served_by_chance_as_asked(serve_cell, capsys):
    endpoint = serve_cell(WAITS, max_batch_size=1)
    endpoint.predict([1])
    words = ["tune", endpoint.name, "--p99-ms", "500", "--load", "100", "--seconds", "20", "--apply", "--json"]
    assert cli.main(words) == 0
    found = json.loads(capsys.readouterr().out)
    # One worker with batches of one does less than fifty a second, so that it is late by far.
    assert found["verdict"] == "keeps the goal", found["notes"]
    assert found["best"]["rate"] >= 100
    assert found["is_applied"]
    assert endpoint.settings["max_batch_size"] == found["best"]["settings"]["max_batch_size"]


@pytest.mark.parametrize("moment", ["starting 1 worker", "the current settings: 1 worker, batch 32, adaptive, 6"])
def test_an_interrupt_leaves_everything_as_it_was(serve_cell, wait_until, moment):
    endpoint = serve_cell(WAITS)
    endpoint.predict([1])
    before = endpoint.settings

    def interrupt(text: str) -> None:
        if moment in text:
            assert trials(endpoint)
            raise KeyboardInterrupt

    if moment.startswith("starting"):
        with pytest.raises(KeyboardInterrupt):
            endpoint.tune(500, on_progress=interrupt)
    else:
        found = endpoint.tune(500, on_progress=interrupt, apply=True)
        assert (found.is_interrupted, found.verdict, found.is_applied) == (True, "not proven", False)
        assert found.best.throughput > 0
        assert "interrupted; the best so far" in found.text
    wait_until(lambda: trials(endpoint) == [])
    assert endpoint.settings == before
    assert endpoint.predict([1]) == [1]


def test_a_goal_out_of_reach_says_what_is_in_reach(serve_cell, capsys):
    endpoint = serve_cell(WAITS)
    endpoint.predict([1])
    with pytest.raises(AutoTuneError, match=r"nothing keeps a p99 of 5 ms: the nearest was \d.* 1 client; give a goal"):
        endpoint.tune(5, seconds=SECONDS)
    assert cli.main(["tune", endpoint.name, "--p99-ms", "5", "--seconds", "10"]) == 1
    assert "nothing keeps a p99 of 5 ms" in capsys.readouterr().err


def test_without_requests_it_says_what_to_do(serve_cell):
    endpoint = serve_cell(WAITS)
    with pytest.raises(ProfileError, match="no request of it was recorded"):
        endpoint.tune(100)


def test_requests_that_fail_are_told_with_what_the_handler_said(serve_cell, wait_until):
    endpoint = serve_cell(FAILS)
    with pytest.raises(AutoTuneError, match=r"with the current settings requests fail .* 500; .*ValueError: no such"):
        endpoint.tune(100, requests=[[1]])
    wait_until(lambda: trials(endpoint) == [])


def test_settings_under_which_requests_fail_lose(serve_cell):
    endpoint = serve_cell(FAILS_IN_COMPANY, max_batch_size=4)
    endpoint.predict([1])
    found = endpoint.tune(500, seconds=SECONDS)
    assert found.best.settings.max_batch_size <= 4
    assert "times 500" in found.text


def test_an_endpoint_that_stops_meanwhile_is_told(serve_cell):
    endpoint = serve_cell(WAITS, name="leaves")
    endpoint.predict([1])

    def stop(text: str) -> None:
        if "6 clients" in text:
            endpoint.stop()

    with pytest.raises(ServerGone, match="leaves was stopped or its server ended while it was tuned"):
        endpoint.tune(500, on_progress=stop)
    serve_cell(WAITS, name="leaves")

"""The lines of a stream put together, and the newest figures in words."""

from __future__ import annotations

import pytest

from nbserve.notebook import live
from nbserve.notebook.live import Live
from tests.notebook.played import endpoint, sample


def test_lines_add_up_to_what_a_panel_shows() -> None:
    found = Live()
    found.take({"event": "begin", "samples": [sample(1.0), sample(1.5)]})
    assert found.sample == sample(1.5)
    found.take({"event": "stats", "endpoint": endpoint(), "sample": sample(2.0), "load": None})
    assert [each["time_s"] for each in found.as_dict()["samples"]] == [1.0, 1.5, 2.0]
    assert found.as_dict()["endpoint"] == endpoint()
    assert found.as_dict()["sample"] == sample(2.0)
    assert not found.is_gone
    found.take({"event": "gone"})
    assert found.is_gone
    assert found.endpoint == endpoint()


def test_a_stream_that_begins_anew_counts_nothing_twice() -> None:
    found = Live()
    for _ in range(2):
        found.take({"event": "begin", "samples": [sample(1.0)]})
    assert len(found.samples) == 1


def test_only_the_last_minutes_are_kept() -> None:
    found = Live()
    for i in range(500):
        found.take({"event": "stats", "endpoint": endpoint(), "sample": sample(i / 2), "load": None})
    assert len(found.samples) == 240


def test_the_newest_figures_in_words() -> None:
    assert live.words(None) == "nothing was measured yet"
    assert live.words(sample(1.0)) == "0 answers/s, no latency yet, 0 queued"
    busy = sample(1.0, 1234.5, queued=3, errors=2)
    told = "1,234 answers/s, latency 8 / 12 / 20 ms (p50 / p95 / p99), 3 queued, batches of 4, 2 errors in 2 s"
    assert live.words(busy) == told


@pytest.mark.parametrize(
    ("value", "told"), [(0, "0"), (0.5, "0.5"), (3.14159, "3.14"), (56.78, "56.8"), (40.0, "40"), (1234.5, "1,234")]
)
def test_three_figures(value: float, told: str) -> None:
    assert live.figure(value) == told

"""The panel's still picture: what it counts, and that all of it is there."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nbserve.notebook import picture, plot
from nbserve.notebook.live import Live
from nbserve.notebook.plot import Bar
from nbserve.notebook.sheet import DENSITY, WIDTH_PX
from nbserve.trace import look, sketch
from nbserve.trace.pen import ACCENT
from tests.notebook.played import BEGAN_S, live, minutes, sample, worker

END_S = BEGAN_S + 120.0
RED = "#d64545"
# So many of its few colours a picture may change a little.
NEAR = 24


def pixels(shown: Live, now_s: float = END_S) -> Any:
    image = Image.open(io.BytesIO(picture.png(shown, now_s)))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB")).astype(int)


def share(drawn: Any, colour: str) -> float:
    """How much of a picture has about this colour."""
    return float((np.abs(drawn - np.array(sketch.rgb(colour))).max(axis=2) < NEAR).mean())


def stage(name: str) -> str:
    return next(kind.colour for kind in look.stages() if kind.name == name)


def test_it_is_as_wide_as_a_cell_and_twice_as_dense() -> None:
    drawn = pixels(live(minutes()))
    assert drawn.shape[1] == WIDTH_PX * DENSITY
    assert drawn.shape[0] < drawn.shape[1]


def test_traffic_is_seen_in_lines_bars_and_stages() -> None:
    idle, busy = pixels(live([sample(END_S)])), pixels(live(minutes()))
    assert share(busy, ACCENT) > 3 * share(idle, ACCENT)
    assert share(busy, stage("inference")) > 2 * share(busy, stage("queue")) > 0
    assert share(idle, stage("inference")) == 0


def test_errors_are_red() -> None:
    failing = [sample(BEGAN_S + i / 2, 100.0, errors=50) for i in range(200)]
    assert share(pixels(live(failing)), RED) > 2 * share(pixels(live(minutes())), RED)


def test_each_worker_has_its_row() -> None:
    heights = [pixels(live(workers=[worker(i) for i in range(count)])).shape[0] for count in (1, 2, 3, 40)]
    assert heights[2] - heights[1] == heights[1] - heights[0] > 0
    assert heights[3] < heights[0] + 10 * (heights[1] - heights[0])


def test_a_stopped_endpoint_has_no_workers_any_more() -> None:
    stopped = live(minutes())
    stopped.is_gone = True
    assert pixels(stopped).shape[0] < pixels(live(minutes())).shape[0]


def test_nothing_measured_yet_is_a_picture_too() -> None:
    assert pixels(live()).std() > 5


@pytest.mark.parametrize("changes", [{"name": "n" * 300}, {"requests": {str(i): 10**9 for i in range(200, 299)}}])
def test_long_texts_do_not_break_it(changes: dict[str, Any]) -> None:
    huge = [sample(BEGAN_S + i, 1e9, queued=10**9, latency_ms={"p50": 1e6, "p95": 1e7, "p99": 1e9}) for i in range(9)]
    assert pixels(live(huge, **changes), BEGAN_S + 9).shape[1] == WIDTH_PX * DENSITY


def test_overlapping_samples_are_counted_once() -> None:
    told = picture.history(minutes(throughput=100.0, seconds=20.0), BEGAN_S - 2)
    assert told.requests == 11 * 200
    assert told.batch_sizes == [(4, 11 * 50)]
    assert told.mean_batch_size == 4.0
    assert (told.stages_ms["inference"], told.stages_ms["queue"]) == pytest.approx((6.0, 2.0))


def test_means_are_weighted_by_requests() -> None:
    slow = sample(BEGAN_S + 2, 10.0)
    slow["stages_ms"]["inference"] = 60.0
    told = picture.history([sample(BEGAN_S, 990.0), slow], BEGAN_S - 2)
    assert told.stages_ms["inference"] == pytest.approx(0.99 * 6 + 0.01 * 60)


def test_old_samples_do_not_count() -> None:
    assert picture.history([sample(BEGAN_S, 50.0)], BEGAN_S + 1).requests == 0


@pytest.mark.parametrize(
    ("sizes", "most", "bars"),
    [
        ([], 1, [Bar(1, 1, 0)]),
        ([(1, 5), (3, 2)], 3, [Bar(1, 1, 5), Bar(2, 2, 0), Bar(3, 3, 2)]),
        ([(1, 1), (2, 1), (32, 7)], 32, [Bar(1, 2, 2), *(Bar(i, i + 1, 0) for i in range(3, 31, 2)), Bar(31, 32, 7)]),
    ],
)
def test_batch_sizes_become_bars(sizes: Sequence[tuple[int, int]], most: int, bars: list[Bar]) -> None:
    assert plot.binned(sizes, most) == bars

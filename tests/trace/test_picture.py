import io
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from nbserve.trace import diagnose, look, pen, picture, sketch, stitch
from nbserve.trace.model import Finding, Timeline
from tests.trace.gpu_traces import thick_bars, thin_stripes


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Timeline:
    return stitch.timeline(thin_stripes(tmp_path_factory.mktemp("stripes"), batches=4))


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Timeline:
    return stitch.timeline(thick_bars(tmp_path_factory.mktemp("bars"), batches=4))


def drawn(timeline: Timeline, findings: list[Finding] | None = None) -> NDArray[np.uint8]:
    image = Image.open(io.BytesIO(picture.png(timeline, findings or [])))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def share_of(pixels: NDArray[np.uint8], kind: look.Kind) -> float:
    return float((pixels == np.array(sketch.rgb(kind.colour), np.uint8)).all(axis=2).mean())


def family(name: str) -> look.Kind:
    return next(kind for kind in look.families() if kind.name == name)


def test_the_picture_has_the_requests_and_the_rows(bars: Timeline) -> None:
    pixels = drawn(bars, diagnose.findings(bars))
    assert pixels.shape[1] == 1000
    assert 250 < pixels.shape[0] < 1000
    assert pixels.std() > 20
    inference = next(stage for stage in look.stages() if stage.name == "inference")
    assert share_of(pixels, inference) > 0.03
    assert share_of(pixels, family("matmul")) > 0.01


def test_each_finding_adds_its_lines(bars: Timeline) -> None:
    finding = Finding("queue-bound", "queue 80 % of the time", 0.8, 0.3, "Too few workers.", "Add a worker.", 2.0)
    heights = [drawn(bars, [finding] * count).shape[0] for count in (0, 1, 3, 9)]
    assert heights[0] < heights[1] < heights[2] < heights[3]
    assert heights[3] < heights[0] + 6 * (heights[1] - heights[0])


def test_many_tiny_kernels_look_different_from_few_large_ones(stripes: Timeline, bars: Timeline) -> None:
    full = [_gpu_row(stripes, "elementwise"), _gpu_row(bars, "matmul")]
    assert full[0] < 0.5
    assert full[1] > 0.8


def _gpu_row(timeline: Timeline, name: str) -> float:
    drawing = sketch.draw(timeline, sketch.window(timeline, None), 900)
    kernels = next(row for row in drawing.rows if "stream" in row.title).pixels[11:21, 60:-60]
    return share_of(kernels, family(name))


def test_merged_columns_are_as_full_as_they_were_busy() -> None:
    pixels = np.full((10, 4, 3), 255, np.uint8)
    # Ten bars in the column at 1, which together fill half of it; nothing at 0, 2 and 3.
    left = 1 + np.arange(10) / 10
    sketch.bars(pixels, left, left + 0.05, np.zeros(10, np.int64))
    first = np.array(sketch.rgb(look.families()[0].colour))
    assert (pixels[:, 1] == first).all(axis=1).sum() == 5
    assert (pixels[:, [0, 2, 3]] == 255).all()


def test_of_a_long_recording_the_part_around_the_median_request_is_shown(stripes: Timeline) -> None:
    late = {**stripes.spans[0], "received_ns": stripes.spans[0]["received_ns"] + 10_000_000_000}
    long = replace(stripes, spans=[*stripes.spans, late])
    median = sketch.median_span(long.spans)
    assert median is not None
    shown = sketch.window(long, median)
    assert shown.length_ms < 100
    assert shown.start_ns <= median["received_ns"] < shown.end_ns
    assert "around the median request" in shown.words
    assert drawn(long).std() > 20


def test_a_recording_without_requests_or_events_is_drawn(stripes: Timeline) -> None:
    nothing = np.zeros(0, np.int64)
    empty = replace(stripes, spans=[], batches=[], events=stripes.events.only(nothing), memory=[])
    assert drawn(empty).shape[1] == 1000


def test_many_requests_at_once_are_cut_and_it_says_so(stripes: Timeline) -> None:
    span = stripes.spans[0]
    crowd = replace(stripes, spans=[{**span, "request_id": str(i)} for i in range(80)])
    drawing = sketch.draw(crowd, sketch.window(crowd, None), 900)
    assert any("of 80 rows of requests" in note for note in drawing.notes)
    assert drawn(crowd).shape[0] < 800


def test_colours_of_names() -> None:
    names = {
        "aten::addmm": "matmul",
        "aten::linear": "matmul",
        "ampere_sgemm_128x128_tn": "matmul",
        "aten::_softmax": "norm",
        "aten::native_layer_norm": "norm",
        "aten::add": "elementwise",
        "aten::copy_": "copy",
        "Memcpy HtoD (Pageable -> Device)": "copy",
        "aten::item": "sync",
        "cudaStreamSynchronize": "sync",
        "cudaLaunchKernel": "launch",
        "cudaGraphLaunch": "launch",
        "aten::scaled_dot_product_attention": "attention",
        "nbserve.batch 12": "batch",
        "my own thing": "other",
    }
    assert {name: look.family_of(name) for name in names} == names


def test_times_are_written_for_people() -> None:
    assert [pen.duration(ms) for ms in (0.0042, 1.234, 56.78, 2345.6)] == [
        "4.20 µs",
        "1.23 ms",
        "56.8 ms",
        "2.35 s",
    ]
    assert [pen.tick_step(least) for least in (0.9, 1.0, 3.0, 60.0)] == [1.0, 1.0, 5.0, 100.0]


def test_the_same_timeline_gives_the_same_picture(bars: Timeline) -> None:
    assert picture.png(bars) == picture.png(bars)

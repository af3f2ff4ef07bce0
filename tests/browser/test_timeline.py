"""The timeline under the pointer and the keys of a real browser."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Page, expect

from nbserve.trace import look, sketch
from nbserve.trace.model import Timeline
from tests.browser.canvas import Canvas
from tests.browser.conftest import SHOWN

pytestmark = pytest.mark.browser

Open = Callable[..., Page]
GUTTER = 150


def opened(open_trace: Open, name: str, **options: object) -> Canvas:
    page = open_trace(name, **options)
    return Canvas(page, page)


@pytest.mark.parametrize("name", ["cpu", "stripes", "bars"])
def test_the_picture_shows_requests_and_operators(open_trace: Open, name: str) -> None:
    canvas = opened(open_trace, name)
    pixels = canvas.pixels()
    assert pixels[:, GUTTER:].std() > 20
    inference = next(stage for stage in look.stages() if stage.name == "inference")
    assert _count(pixels, inference.colour) > 1_000
    assert "the whole recording" in _tab(canvas, "Operators").locator(".caption").first.inner_text()


def test_nothing_is_asked_of_any_network(open_trace: Open, new_page: Callable[..., Page]) -> None:
    page = open_trace("cpu")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    page.wait_for_selector(SHOWN)
    assert [url for url in asked if not url.startswith("file:")] == []
    expect(page.get_by_role("button", name="Open in Perfetto")).to_have_count(0)


def test_many_tiny_kernels_look_different_from_few_large_ones(open_trace: Open) -> None:
    fullness = {}
    colours = {family.name: np.array(sketch.rgb(family.colour)) for family in look.families()}
    rows = (
        ("stripes", "Memcpy HtoD (Pageable -> Device)", "elementwise"),
        ("bars", "ampere_sgemm_128x128_tn", "matmul"),
    )
    for name, kernel, family in rows:
        canvas = opened(open_trace, name)
        box = canvas.box("event", canvas.event(kernel))
        row = canvas.pixels()[int(box["top"]) + 1 : int(box["top"] + box["height"]) - 2, GUTTER + 40 : -60]
        fullness[name] = (row == colours[family]).all(axis=2).mean()
    assert fullness["bars"] > 0.8
    assert fullness["stripes"] < 0.4


def test_pointing_at_an_operator_tells_what_it_is(open_trace: Open) -> None:
    canvas = opened(open_trace, "cpu")
    operator = canvas.event("aten::_native_multi_head_attention")
    canvas.come_close(operator)
    told = canvas.hover("event", operator)
    assert told.startswith("aten::_native_multi_head_attention")
    for fact in ("duration", "self", "float32[4,24,128]", "batch", "4 requests", "0001-"):
        assert fact in told
    canvas.page.mouse.move(1, 1)
    expect(canvas.view.locator(".tooltip")).to_be_hidden()


def test_pointing_at_a_kernel_names_its_launch(open_trace: Open) -> None:
    canvas = opened(open_trace, "bars")
    told = canvas.hover("event", canvas.event("ampere_sgemm_128x128_tn"))
    assert "launched by" in told
    assert "cudaLaunchKernel" in told


def test_pointing_at_a_request_tells_its_stages(open_trace: Open) -> None:
    canvas = opened(open_trace, "stripes")
    told = canvas.hover("request", 5)
    for fact in ("request ", "total", "queue", "inference", "batch"):
        assert fact in told


def test_keys_zoom_move_and_fit(open_trace: Open) -> None:
    canvas = opened(open_trace, "cpu")
    whole = canvas.shown()
    canvas.press("w")
    canvas.press("w")
    closer = canvas.shown()
    assert closer[1] - closer[0] < (whole[1] - whole[0]) / 1.5
    canvas.press("d")
    assert canvas.shown()[0] > closer[0]
    canvas.press("a")
    assert canvas.shown() == pytest.approx(closer)
    canvas.press("s")
    assert canvas.shown()[1] - canvas.shown()[0] > closer[1] - closer[0]
    canvas.press("f")
    assert canvas.shown() == pytest.approx(whole)


def test_the_wheel_zooms_where_the_pointer_is(open_trace: Open) -> None:
    canvas = opened(open_trace, "cpu")
    number = canvas.event("nbserve.batch 1")
    canvas.hover("event", number)
    before = canvas.box("event", number)
    canvas.page.keyboard.down("Control")
    for _ in range(6):
        canvas.page.mouse.wheel(0, -60)
    canvas.page.keyboard.up("Control")
    canvas.settle()
    after = canvas.box("event", number)
    assert after["width"] > 4 * before["width"]
    assert after["left"] < before["left"] + before["width"] / 2 < after["left"] + after["width"]


def test_dragging_the_rows_moves_them_along(open_trace: Open) -> None:
    canvas = opened(open_trace, "cpu")
    for _ in range(5):
        canvas.press("w")
    number = canvas.event("nbserve.batch 4")
    before, picture = canvas.box("event", number), canvas.pixels()
    canvas.drag(600, 500, before["top"] + 5)
    assert canvas.box("event", number)["left"] == pytest.approx(before["left"] - 100, abs=2)
    assert (canvas.pixels() != picture).any()


def test_a_search_lights_up_counts_and_jumps(open_trace: Open, timelines: dict[str, Timeline]) -> None:
    canvas = opened(open_trace, "stripes")
    events = timelines["stripes"].events
    wanted = [i for i, name in enumerate(events.names) if "sigmoid" in name]
    count = int(np.isin(events.name, wanted).sum())
    canvas.press("/")
    canvas.page.keyboard.type("sigmoid")
    result = canvas.view.locator("output")
    expect(result).to_contain_text(f"{count:,} ·")
    assert _count(canvas.pixels(), "#ff56a5") > 300
    canvas.page.keyboard.press("Enter")
    expect(result).to_contain_text(f"1 of {count:,}")
    canvas.press("n")
    expect(result).to_contain_text(f"2 of {count:,}")
    expect(canvas.view.locator(".details h3")).to_contain_text("sigmoid")
    canvas.press("Shift+N")
    expect(result).to_contain_text(f"1 of {count:,}")
    canvas.view.get_by_role("searchbox").press("Escape")
    expect(result).to_have_text("")
    assert _count(canvas.pixels(), "#ff56a5") == 0


def test_a_request_is_found_by_its_id(open_trace: Open) -> None:
    canvas = opened(open_trace, "cpu")
    search = canvas.view.get_by_role("searchbox")
    search.fill("0003-2")
    search.press("Enter")
    expect(canvas.view.locator(".details h3")).to_have_text("request 0003-2")


def test_selecting_a_request_leaves_its_batch_lit_and_dims_the_others(open_trace: Open) -> None:
    canvas = opened(open_trace, "bars")
    other, own = (canvas.point(canvas.box("event", canvas.event(f"nbserve.batch {n}"))) for n in (2, 4))
    bright = canvas.pixels()
    request = canvas.view.evaluate("nbserveTrace.scene.trace.header.spans.findIndex((span) => span.batch === 3)")
    canvas.element.click(position=canvas.point(canvas.box("request", request)))  # type: ignore[arg-type]
    expect(canvas.view.locator(".details h3")).to_contain_text("request 0-4")
    expect(canvas.view.locator(".details .stagebar")).to_be_visible()
    dimmed = canvas.pixels()
    changes = [np.abs(dimmed - bright)[_line(point)].mean() for point in (other, own)]
    assert changes[0] > 2 * changes[1]
    canvas.press("Escape")
    expect(canvas.view.locator(".details")).to_be_hidden()
    canvas.page.mouse.move(1, 1)
    # All but the outline of the focus is as it was.
    assert (np.abs(canvas.pixels() - bright).sum(axis=2) > 30).mean() < 0.03


def test_keys_alone_reach_each_request(open_trace: Open) -> None:
    canvas = opened(open_trace, "cpu")
    canvas.press("]")
    expect(canvas.view.locator(".details h3")).to_contain_text("request 0001-")
    canvas.press("[")
    expect(canvas.view.locator(".details h3")).to_contain_text("request 0008-")
    outline = canvas.element.evaluate("(canvas) => getComputedStyle(canvas).outlineStyle")
    assert outline != "none"


def test_a_range_of_the_axis_is_summed(open_trace: Open, timelines: dict[str, Timeline]) -> None:
    canvas = opened(open_trace, "bars")
    kernels = [canvas.box("event", canvas.event("ampere_sgemm_128x128_tn", nth=n)) for n in (8, 15)]
    canvas.drag(kernels[0]["left"] + 2, kernels[1]["left"] + kernels[1]["width"] - 2, 10)
    details = canvas.view.locator(".details")
    row = details.get_by_role("row").filter(has_text="ampere_sgemm_128x128_tn")
    expect(row).to_have_count(1)
    _, device, self_time, share, total_time, calls = row.get_by_role("cell").all_inner_texts()
    assert (device, share, calls) == ("GPU", "100 %", "8")
    assert total_time == self_time
    assert 19.0 < float(self_time.removesuffix(" ms")) < 20.0


def _tab(canvas: Canvas, name: str) -> Page:
    canvas.view.get_by_role("tab", name=name).click()
    return canvas.view.get_by_role("tabpanel", name=name)  # type: ignore[return-value]


def _count(pixels: NDArray[np.int64], colour: str) -> int:
    return int((pixels == np.array(sketch.rgb(colour))).all(axis=2).sum())


def _line(point: dict[str, float]) -> tuple[slice, slice]:
    """The pixels above a point, clear of any text."""
    return slice(int(point["y"]) - 6, int(point["y"]) - 4), slice(int(point["x"]) - 10, int(point["x"]) + 10)

"""What the live panel shows, in a real browser, with a server that the test plays."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.panels import FakeServer, held, refusal, sample, worker

pytestmark = pytest.mark.browser

NewPage = Callable[..., Page]
TRACEBACK = 'Traceback (most recent call last):\n  File "a.ipynb, cell 7", line 12\nValueError: no number'
# All that stands still while numbers move.
PARTS = "header, h3, .figure, .plot, .bars, .stagebar, .legend > div, .knob, .knob > *, .actions *, tr, td, .toolbar *"
BOXES = f"""() => [...document.querySelector('#panel > div').shadowRoot.querySelectorAll({PARTS!r})].map((part) => {{
    const {{ x, y, width, height }} = part.getBoundingClientRect();
    return [part.tagName, part.className.split(' ')[0], x, y, part.matches('.figure') ? 0 : width, height].join(' ');
}})"""
FOCUSED = """() => {
    const focused = document.activeElement?.shadowRoot?.activeElement;
    if (!focused) return null;
    const drawn = [focused, focused.nextElementSibling].filter(Boolean);
    const isSeen = drawn.some((each) => getComputedStyle(each).outlineStyle !== 'none');
    return [focused.ariaLabel || focused.textContent || focused.value, isSeen];
}"""


def test_numbers_appear_and_move(server: FakeServer) -> None:
    page = server.live()
    expect(page.locator(".presence")).to_have_text("live through Jupyter’s server")
    expect(page.locator(".url code")).to_have_text("http://127.0.0.1:43817/predictions/digits")
    server.tick(throughput=1234.4, latency_ms={"p50": 4.125, "p95": 12.34, "p99": 150.4}, queued=7, errors=4)
    expect(page.locator(".throughput .figure").first).to_have_text("1,234/s")
    expect(page.locator(".throughput .figure.bad")).to_have_text("2errors/s")
    expect(page.locator(".latency .figures")).to_have_text("4.13p5012.3p95150p99")
    expect(page.locator(".queue .figures")).to_have_text("7waiting")
    server.tick(throughput=99.0, latency_ms=None)
    expect(page.locator(".throughput .figure").first).to_have_text("99/s")
    expect(page.locator(".throughput .figure.bad")).to_have_count(0)
    expect(page.locator(".latency .figures")).to_have_text("–p50–p95–p99")
    expect(page.get_by_role("img", name="Throughput over the last 2 minutes, now 99 per second")).to_be_visible()


def test_what_is_known_is_seen_before_anything_is_heard(server: FakeServer) -> None:
    server.knows = False
    snapshot = {
        "endpoint": server.endpoint,
        "sample": sample(9, throughput=321.0),
        "load": None,
        "samples": [sample(8)],
    }
    server.open(snapshot=snapshot)
    expect(server.page.locator(".throughput .figure").first).to_have_text("321/s")
    expect(server.page.get_by_role("slider", name="Max batch size")).to_be_disabled()
    expect(server.page.get_by_role("slider", name="Max batch size")).to_have_attribute("aria-valuetext", "32")


def test_the_lines_of_two_minutes_are_drawn(server: FakeServer) -> None:
    page = server.live()
    picture = pixels(page, ".throughput canvas")
    accent = np.array([29, 95, 209])
    columns = (np.abs(picture - accent).sum(axis=2) < 60).any(axis=0)
    # All but the axis on the left.
    assert columns[45:-4].mean() > 0.95


def test_a_change_of_settings_is_marked_and_told_under_the_pointer(server: FakeServer) -> None:
    page = server.live()
    server.configure(max_batch_size=64)
    for _ in range(60):
        server.tick()
    expect(page.get_by_role("slider", name="Max batch size")).to_have_attribute("aria-valuetext", "64")
    place = page.locator(".queue .u-over").bounding_box()
    assert place
    # The first of those 60 half seconds told of it.
    page.mouse.move(place["x"] + place["width"] * (1 - 29.5 / 120), place["y"] + 30)
    for tile in ("throughput", "latency", "queue"):
        expect(page.locator(f".{tile} .moment")).to_have_text("30 s ago · max_batch_size 32 → 64")
    page.mouse.move(place["x"] + place["width"] * 0.25, place["y"] + 30)
    expect(page.locator(".queue .moment")).to_have_text("1:30 min ago")
    page.mouse.move(1, 1)
    expect(page.locator(".queue .moment")).to_have_text("")


def test_batches_and_stages_are_told_in_numbers(server: FakeServer) -> None:
    page = server.live()
    stages = {"queue": 2.0, "inference": 6.0, "ipc": 0.5, "encode": 0.5, "respond": 1.0}
    server.tick(batch_sizes=[[1, 30], [2, 10], [32, 60]], batches=100, mean_batch_size=19.7, stages_ms=stages)
    expect(page.locator(".batches .figures")).to_have_text("19.7mean of 50 batches/s")
    bars = page.locator(".bars span")
    expect(bars).to_have_count(16)
    expect(bars.first).to_have_attribute("title", "40 of 1 to 2 (40 %)")
    expect(bars.last).to_have_attribute("title", "60 of 31 to 32 (60 %)")
    expect(page.locator(".spent .figures")).to_have_text("10.0ms in the mean request")
    legend = page.locator(".spent .legend > div")
    texts = ["queue2.00 ms20 %", "batch wait0 ms0 %", "preprocess0 ms0 %", "inference6.00 ms60 %"]
    expect(legend).to_have_text([*texts, "postprocess0 ms0 %", "other2.00 ms20 %"])
    hint = "inference (the handler's inference): 6.00 ms, 60 %"
    expect(page.locator(".spent .stagebar .inference")).to_have_attribute("title", hint)


def test_each_worker_has_a_row(server: FakeServer) -> None:
    gone = worker(3, state="DEAD", restarts=2, last_error=TRACEBACK, last_error_place="a.ipynb, cell 7, line 12")
    server.endpoint["workers"] += [worker(2, state="HELD", held=held(2)), gone]
    page = server.live()
    rows = page.locator("tbody").get_by_role("row")
    expect(rows).to_have_count(4)
    expect(rows.first.get_by_role("cell")).to_have_text(
        ["0", "ready", "cpu", "1", "87 %", "412 MiB", "10,312", "0", "4100", ""], use_inner_text=True
    )
    expect(rows.nth(1).locator(".state.good")).to_have_text("busy")
    expect(rows.nth(2).locator(".state.waiting")).to_have_text("held")
    expect(rows.nth(2).locator(".text")).to_have_text("at quickstart.ipynb, cell 7, line 12 in preprocess")
    expect(rows.nth(3).locator(".state.bad")).to_have_text("restarting")
    expect(rows.nth(3).locator(".note.bad .text")).to_have_text("a.ipynb, cell 7, line 12: ValueError: no number")
    expect(rows.nth(3).locator(".text")).to_have_attribute("title", TRACEBACK)
    rows.nth(2).get_by_role("button", name="%serve debug").click()
    assert page.evaluate("navigator.clipboard.readText()") == "%serve debug digits --worker 2"
    rows.nth(2).get_by_role("button", name="nbserve attach").click()
    assert page.evaluate("navigator.clipboard.readText()") == "nbserve attach digits --worker 2"
    server.endpoint["workers"] = [worker(0)]
    server.tick()
    expect(rows).to_have_count(1)


@pytest.mark.parametrize("width", [380, 600, 720, 1040])
def test_nothing_moves_when_numbers_do(new_page: NewPage, width: int) -> None:
    server = FakeServer(new_page(width=width, height=2000), history=10, ticks=10)
    page = server.live()
    server.tick(throughput=0, latency_ms=None, queued=0, errors=0, batch_sizes=[], batches=0, mean_batch_size=0.0)
    expect(page.locator(".throughput .figure").first).to_have_text("0/s")
    before = page.evaluate(BOXES)
    assert len(before) > 80
    failed = {"state": "STARTING", "last_error": TRACEBACK, "last_error_place": "a.ipynb, cell 7, line 12"}
    changes: list[dict[str, Any]] = [
        {"workers": [worker(0, batches=0, rss_bytes=0, cpu_percent=0.0), worker(1, **failed)]},
        {"workers": [worker(0, batches=1_234_567, rss_bytes=12 * 2**30, cpu_percent=1600.0), worker(1, held=held(1))]},
    ]
    for i, change in enumerate(changes):
        server.endpoint = {**server.endpoint, **change}
        big = {"p50": 987.6, "p95": 4321.0, "p99": 9876.0}
        server.tick(throughput=123_456.0 + i, latency_ms=big, queued=1024, errors=999)
        expect(page.locator(".throughput .figure").first).to_have_text(f"123,45{6 + i}/s")
        assert page.evaluate(BOXES) == before
    server.answers["PATCH"] = refusal(400, "it cannot be that, nor that " * 5)
    for name in ("max_batch_size", "queue_size"):
        knob = page.locator(f".knob.{name} input").first
        knob.fill("0")
        knob.press("Enter")
    expect(page.locator(".refused")).to_have_count(2)
    assert page.evaluate(BOXES) == before
    server.hang_up()
    expect(page.locator(".panel")).to_have_attribute("data-presence", "lost")
    assert page.evaluate(BOXES) == before


@pytest.mark.parametrize("width", [380, 600, 720, 1040])
def test_everything_fits_in_narrow_and_wide_cells(new_page: NewPage, width: int) -> None:
    server = FakeServer(new_page(width=width), history=239, ticks=239)
    server.endpoint["workers"] = [worker(0, state="HELD", held=held(0)), worker(1, last_error="x" * 300)]
    page = server.live()
    for name in ("Request", "Load", "Profile", "Debug", "Logs", "Export"):
        page.get_by_role("button", name=name, exact=True).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    tops = {str(page.locator(f".{tile}").bounding_box()["y"]) for tile in ("throughput", "latency")}  # type: ignore[index]
    assert len(tops) == (2 if width < 560 else 1)


def test_it_is_as_light_or_dark_as_the_notebook(server: FakeServer) -> None:
    page = server.live(light=False)
    expect(page.locator(".panel")).to_have_attribute("data-theme", "dark")
    assert pixels(page, ".throughput").mean() < 80
    page.evaluate("document.body.dataset.jpThemeLight = 'true'")
    page.add_style_tag(content=":root { --jp-layout-color1: #fff; --jp-ui-font-color1: #000; }")
    expect(page.locator(".panel")).to_have_attribute("data-theme", "light")
    assert pixels(page, ".throughput").mean() > 200


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_outside_of_jupyter_it_is_as_the_person_prefers(new_page: NewPage, scheme: str, is_dark: bool) -> None:
    server = FakeServer(new_page(color_scheme=scheme))
    page = server.live()
    page.evaluate("document.body.removeAttribute('data-jp-theme-light'); document.querySelector('style').remove()")
    expect(page.locator(".panel")).to_have_attribute("data-theme", scheme)
    assert bool(pixels(page, ".spent").mean() < 80) is is_dark


def test_the_picture_for_others_is_hidden(server: FakeServer) -> None:
    page = server.live()
    expect(page.locator("#twin")).to_be_hidden()


def test_all_of_it_is_reached_by_keys(server: FakeServer) -> None:
    page = server.live()
    reached: list[str] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        told = page.evaluate(FOCUSED)
        if told is None and reached:
            break
        if told is not None:
            assert told[1], f"nobody sees that {told[0]} has the focus"
            reached.append(told[0])
    wanted = ["copy", "adaptive", "Max batch size", "Max batch size", "fewer workers", "more workers", "Queue size"]
    wanted += ["Time-out", "Copy as %%serve options", "Request", "Load", "Profile", "Debug", "Logs", "Export", "Stop"]
    assert [name for name in reached if name in wanted] == wanted


def test_calm_is_kept_for_those_who_ask_for_it(new_page: NewPage) -> None:
    page = FakeServer(new_page(reduced_motion="reduce")).live()
    assert (
        page.locator(".stagebar > span").first.evaluate("(part) => getComputedStyle(part).transitionDuration") == "0s"
    )


def pixels(page: Page, selector: str) -> Any:
    image = Image.open(io.BytesIO(page.locator(selector).screenshot())).convert("RGB")
    return np.asarray(image).astype(np.int64)

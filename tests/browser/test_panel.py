"""The live panel in a real browser, with a server that the test plays."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.panels import FakeServer

pytestmark = pytest.mark.browser

NewPage = Callable[..., Page]


@pytest.fixture
def server(new_page: NewPage) -> FakeServer:
    return FakeServer(new_page(), history=200, ticks=200)


def figure(page: Page, tile: str, nth: int = 0) -> str:
    return page.locator(f".{tile} .figure b").nth(nth).inner_text()


def test_numbers_appear_and_move(server: FakeServer) -> None:
    server.open()
    page = server.page
    expect(page.locator(".presence")).to_have_text("live through Jupyter’s server")
    server.tick(throughput=1234.4, latency_ms={"p50": 4.125, "p95": 12.34, "p99": 150.4}, queued=7, errors=4)
    expect(page.locator(".throughput .figure").first).to_have_text("1,234/s")
    expect(page.locator(".throughput .figure").nth(1)).to_have_text("2errors/s")
    expect(page.locator(".latency .figures")).to_have_text("4.13p5012.3p95150p99")
    expect(page.locator(".queue .figures")).to_have_text("7waiting")
    server.tick(throughput=99.0, latency_ms=None)
    expect(page.locator(".throughput .figure").first).to_have_text("99/s")
    expect(page.locator(".latency .figures")).to_have_text("–p50–p95–p99")


def test_a_slider_asks_once_for_what_it_came_to_rest_at(server: FakeServer) -> None:
    server.open()
    slider = server.page.get_by_role("slider", name="Max batch size")
    expect(slider).to_be_enabled()
    slider.focus()
    with server.page.expect_response(lambda response: response.request.method == "PATCH"):
        for _ in range(3):
            slider.press("ArrowRight")
    assert server.calls("PATCH") == [{"max_batch_size": 96}]
    expect(slider).to_have_attribute("aria-valuetext", "96")


def test_without_the_extension_it_talks_through_the_kernel(server: FakeServer) -> None:
    server.knows = False
    server.open()
    page = server.page
    page.wait_for_function("fake.sent.some((message) => message.op === 'follow')")
    page.evaluate("line => fake.say({ op: 'line', line })", server.begin())
    page.evaluate("line => fake.say({ op: 'line', line })", server.stats(throughput=321.0))
    expect(page.locator(".presence")).to_have_text("through the kernel: waits while a cell runs")
    expect(page.locator(".throughput .figure").first).to_have_text("321/s")
    page.get_by_role("button", name="more workers").click()
    page.wait_for_function("fake.sent.some((message) => message.op === 'call')")
    call = page.evaluate("fake.sent.find((message) => message.op === 'call')")
    assert (call["method"], call["path"], call["body"]) == ("PATCH", "", {"workers": 3})
    server.endpoint["settings"]["workers"] = 3
    reply = {"op": "reply", "id": call["id"], "status": 200, "content_type": "application/json"}
    page.evaluate("reply => fake.say(reply)", {**reply, "body": server.endpoint})
    expect(page.locator(".stepper output")).to_have_text("3")
    expect(page.locator(".knob.pending")).to_have_count(0)

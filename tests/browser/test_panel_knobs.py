"""The panel's knobs under a hand, and what they ask of the server."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, Request, Response, Route, expect

from tests.browser.panels import FakeServer, refusal

pytestmark = pytest.mark.browser


def is_patch(what: Request | Response) -> bool:
    return (what.request if isinstance(what, Response) else what).method == "PATCH"


def set_number(page: Page, name: str, value: Any) -> None:
    """Type a value and wait until the server has answered."""
    with page.expect_response(is_patch):
        field = page.get_by_role("spinbutton", name=name)
        field.fill(str(value))
        field.press("Enter")


def test_a_slider_asks_once_for_what_it_came_to_rest_at(server: FakeServer) -> None:
    server.page.clock.install()
    page = server.live()
    page.clock.pause_at(page.evaluate("Date.now()") + 1000)
    slider = page.get_by_role("slider", name="Max batch size")
    for _ in range(3):
        slider.press("ArrowRight")
        page.clock.run_for(100)
        assert not server.calls("PATCH")
    expect(page.get_by_role("spinbutton", name="Max batch size")).to_have_value("96")
    expect(page.locator(".max_batch_size .hint")).to_have_text("setting…")
    with page.expect_response(is_patch):
        page.clock.run_for(60)
    page.clock.resume()
    expect(page.locator(".max_batch_size .hint")).to_have_text("most requests in one batch")
    assert server.calls("PATCH") == [{"max_batch_size": 96}]
    expect(slider).to_have_attribute("aria-valuetext", "96")


def test_keys_move_a_slider_from_stop_to_stop(server: FakeServer) -> None:
    page = server.live()
    slider = page.get_by_role("slider", name="Max batch size")
    for key, value in (("Home", 1), ("ArrowUp", 2), ("PageUp", 6), ("End", 512), ("ArrowLeft", 384), ("PageDown", 128)):
        slider.press(key)
        expect(slider).to_have_attribute("aria-valuetext", str(value))


def test_the_last_of_several_values_wins(server: FakeServer) -> None:
    page = server.live()
    waiting: list[Route] = []
    server.answers["PATCH"] = waiting.append
    more = page.get_by_role("button", name="more workers")
    with page.expect_request(is_patch):
        more.click()
    more.click()
    more.click()
    expect(page.locator(".stepper output")).to_have_text("5")
    expect(page.locator(".knob.workers")).to_have_attribute("aria-busy", "true")
    del server.answers["PATCH"]
    with page.expect_response(
        lambda response: is_patch(response) and '"workers":5' in (response.request.post_data or "")
    ):
        server.configure(workers=3)
        waiting[0].fulfill(json=server.endpoint)
    expect(page.locator(".knob.workers")).to_have_attribute("aria-busy", "false")
    assert server.calls("PATCH") == [{"workers": 3}, {"workers": 5}]
    expect(page.locator(".stepper output")).to_have_text("5")


def test_what_the_server_refuses_is_told_at_the_knob(server: FakeServer) -> None:
    page = server.live()
    server.answers["PATCH"] = refusal(400, "queue_size is 0; the least it can be is 1")
    set_number(page, "Queue size", 0)
    knob = page.locator(".knob.queue_size")
    expect(knob.locator(".hint")).to_have_text("queue_size is 0; the least it can be is 1")
    expect(page.get_by_role("spinbutton", name="Queue size")).to_have_value("1024")
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    del server.answers["PATCH"]
    set_number(page, "Queue size", 2000)
    expect(knob.locator(".hint")).to_have_text("beyond it: 503")
    expect(page.get_by_role("spinbutton", name="Queue size")).to_have_value("2000")


def test_changes_are_taken_back_one_by_one(server: FakeServer) -> None:
    page = server.live()
    undo = page.get_by_role("button", name="Undo")
    expect(undo).to_be_disabled()
    set_number(page, "Max batch size", 64)
    set_number(page, "Time-out", 5)
    expect(undo).to_have_attribute("title", "response_timeout_s back to 60 (Ctrl+Z)")
    with page.expect_response(is_patch):
        undo.click()
    expect(page.get_by_role("spinbutton", name="Time-out")).to_have_value("60")
    page.get_by_role("slider", name="Max batch size").focus()
    with page.expect_response(is_patch):
        page.keyboard.press("Control+z")
    expect(page.get_by_role("spinbutton", name="Max batch size")).to_have_value("32")
    expect(undo).to_be_disabled()
    names = [*server.calls("PATCH")]
    assert names == [
        {"max_batch_size": 64},
        {"response_timeout_s": 5},
        {"response_timeout_s": 60},
        {"max_batch_size": 32},
    ]


def test_the_delay_belongs_to_the_policy_window(server: FakeServer) -> None:
    page = server.live()
    delay = page.get_by_role("slider", name="Max batch delay")
    expect(delay).to_be_disabled()
    with page.expect_response(is_patch):
        page.get_by_role("radio", name="window").check()
    expect(delay).to_be_enabled()
    set_number(page, "Max batch delay", 7.5)
    expect(delay).to_have_attribute("aria-valuetext", "7.5")
    expect(page.locator(".policy .hint")).to_have_text("waits for the max batch delay")
    assert server.calls("PATCH") == [{"policy": "window"}, {"max_batch_delay_ms": 7.5, "policy": "window"}]


def test_changes_from_elsewhere_move_a_knob_that_nobody_holds(server: FakeServer) -> None:
    page = server.live()
    field = page.get_by_role("spinbutton", name="Queue size")
    field.fill("77")
    server.configure(queue_size=500, max_batch_size=100)
    server.tick()
    expect(page.get_by_role("slider", name="Max batch size")).to_have_attribute("aria-valuetext", "100")
    expect(field).to_have_value("77")
    field.press("Escape")
    expect(field).to_have_value("500")
    assert not server.calls("PATCH")


def test_a_slider_in_the_hand_stays_there(server: FakeServer) -> None:
    page = server.live()
    slider = page.get_by_role("slider", name="Max batch size")
    place = slider.bounding_box()
    assert place
    middle = place["y"] + place["height"] / 2
    page.mouse.move(place["x"] + place["width"] * 9 / 17, middle)
    page.mouse.down()
    with page.expect_response(is_patch):
        page.mouse.move(place["x"] + place["width"] * 0.8, middle, steps=5)
    value = str(slider.get_attribute("aria-valuetext"))
    server.configure(max_batch_size=1)
    for _ in range(4):
        server.tick()
    server.tick(queued=77)
    expect(page.locator(".queue .figure b")).to_have_text("77")
    expect(slider).to_have_attribute("aria-valuetext", value)
    page.mouse.up()
    expect(slider).to_have_attribute("aria-valuetext", "1")


def test_a_line_from_before_the_answer_does_not_move_it_back(server: FakeServer) -> None:
    page = server.live()
    old = server.endpoint
    set_number(page, "Max batch size", 64)
    new, server.endpoint = server.endpoint, old
    server.tick(queued=55)
    expect(page.locator(".queue .figure b")).to_have_text("55")
    expect(page.get_by_role("spinbutton", name="Max batch size")).to_have_value("64")
    server.endpoint = new
    server.tick()
    server.configure(max_batch_size=8)
    server.tick()
    expect(page.get_by_role("spinbutton", name="Max batch size")).to_have_value("8")


@pytest.mark.parametrize(
    ("typed", "settings", "line"),
    [
        ("digits --workers 2", {}, "%%serve digits --workers 2"),
        ("digits --workers 2", {"workers": 1}, "%%serve digits"),
        (
            "digits --device cpu --max-batch-size=8 --port 8000 --no-isolate-errors",
            {"max_batch_size": 64, "queue_size": 10, "response_timeout_s": 2.5},
            "%%serve digits --device cpu --port 8000 --no-isolate-errors"
            " --workers 2 --max-batch-size 64 --queue-size 10 --response-timeout-s 2.5",
        ),
        (
            "digits --compile 'my backend' --policy window",
            {"policy": "window", "max_batch_delay_ms": 3.0},
            "%%serve digits --compile 'my backend' --workers 2 --max-batch-delay-ms 3",
        ),
        ("digits", {"policy": "window", "max_batch_delay_ms": 0.0}, "%%serve digits --workers 2 --policy window"),
        ("digits", {"policy": "adaptive", "max_batch_delay_ms": 5.0}, "%%serve digits --workers 2"),
        ("", {}, "%%serve digits --workers 2"),
    ],
)
def test_the_line_for_the_cell_is_copied(server: FakeServer, typed: str, settings: dict[str, Any], line: str) -> None:
    server.configure(**settings)
    page = server.live(line=typed)
    page.get_by_role("button", name="Copy as %%serve options").click()
    expect(page.get_by_role("button", name="copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == line

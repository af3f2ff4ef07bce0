"""What opens below the panel: requests, load, profiles, debugging, the log; and how it is stopped."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.panels import EPOCH_S, STAGES, FakeServer, Json, encoded, held, refusal, worker

pytestmark = pytest.mark.browser

RECORDED = [
    {"content_type": "image/png", "body_base64": encoded(b"\x89PNG\xff\x00"), "status": 200},
    {"content_type": "application/json", "body_base64": encoded([0.5] * 40), "status": 200},
]
SPAN = {f"{stage}_ms": 1.0 for stage in STAGES}
LOAD: Json = {
    "clients": 8,
    "rate": None,
    "seconds": 30.0,
    "began_s": EPOCH_S + 110,
    "is_running": True,
    "requests": 0,
    "errors": {},
    "outcome": None,
}
OUTCOME: Json = {
    "requests": 9003,
    "errors": {"503": 3},
    "seconds": 30.0,
    "rate": 300.0,
    "latency_ms": {"p50": 4.0, "p90": 6.0, "p99": 12.5, "max": 20.0, "mean": 5.0},
}


def opened(server: FakeServer, name: str) -> Page:
    page = server.live()
    page.get_by_role("button", name=name, exact=True).click()
    return page


def prediction(status: int, body: object) -> Json:
    return {
        "status": status,
        "content_type": "application/json",
        "body_base64": encoded(body),
        "ms": 9.25,
        "span": SPAN,
    }


def test_a_typed_request_is_answered_with_its_time_line(server: FakeServer) -> None:
    server.answers["GET /recorded"] = lambda route: route.fulfill(json=[])
    server.answers["POST /predict"] = lambda route: route.fulfill(json=prediction(200, {"label": "four"}))
    page = opened(server, "Request")
    drawer = page.get_by_role("region", name="Request")
    drawer.get_by_role("textbox", name="body").fill("[1, 2]")
    drawer.get_by_role("textbox", name="body").press("Control+Enter")
    expect(drawer.get_by_role("status")).to_have_text("200 in 9.25 ms · application/json")
    expect(drawer.get_by_role("region", name="answer")).to_have_text('{"label": "four"}')
    expect(drawer.get_by_role("img", name="inference (the handler's inference): 1.00 ms, 11 %")).to_be_visible()
    assert server.calls("POST", "/predict") == [{"body": "[1, 2]", "content_type": "application/json"}]


def test_a_recorded_request_is_sent_as_it_was(server: FakeServer) -> None:
    server.answers["GET /recorded"] = lambda route: route.fulfill(json=RECORDED)
    server.answers["POST /predict"] = lambda route: route.fulfill(json=prediction(422, {"message": "too small"}))
    page = opened(server, "Request")
    drawer = page.get_by_role("region", name="Request")
    choice = drawer.get_by_role("combobox", name="Request")
    expect(choice.locator("option")).to_have_count(3)
    # The newest is there to begin with.
    expect(drawer.get_by_role("textbox", name="body")).to_have_value(
        "[\n  "
        + ", ".join(["0.5"] * 12)
        + ",\n  "
        + ", ".join(["0.5"] * 12)
        + ",\n  "
        + ", ".join(["0.5"] * 12)
        + ",\n  "
        + ", ".join(["0.5"] * 4)
        + "\n]"
    )
    choice.select_option("1")
    expect(drawer.get_by_role("textbox", name="body")).to_have_value("6 bytes of image/png")
    drawer.get_by_role("button", name="Send").click()
    expect(drawer.locator(".saying.bad")).to_have_text("422 in 9.25 ms · application/json")
    assert server.calls("POST", "/predict") == [
        {"body_base64": encoded(b"\x89PNG\xff\x00"), "content_type": "image/png"}
    ]


def test_load_runs_at_the_server_and_is_found_again(server: FakeServer) -> None:
    def start(route: Route) -> None:
        server.load = LOAD
        route.fulfill(json=LOAD)

    server.answers["POST /load"] = start
    server.answers["DELETE /load"] = lambda route: route.fulfill(json={**LOAD, "is_running": False})
    page = opened(server, "Load")
    drawer = page.get_by_role("region", name="Load")
    drawer.get_by_role("combobox", name="kind of load").select_option("rate")
    drawer.get_by_role("spinbutton", name="how much load").fill("250")
    drawer.get_by_role("button", name="Start").click()
    expect(drawer.get_by_role("button", name="Stop")).to_be_visible()
    assert server.calls("POST", "/load") == [{"rate": 250, "seconds": 30}]
    page.reload()
    page.get_by_role("button", name="Load", exact=True).click()
    server.load = {**LOAD, "requests": 4000, "errors": {"503": 3}}
    server.tick(time_s=EPOCH_S + 122)
    expect(drawer.get_by_role("status")).to_have_text("8 clients: 4,000 requests, errors: 3 of 503, 18 s left")
    assert drawer.get_by_role("progressbar").get_attribute("value") == "0.4"
    drawer.get_by_role("button", name="Stop").click()
    expect(drawer.get_by_role("button", name="Start")).to_be_visible()
    assert server.calls("DELETE", "/load") == [None]
    server.load = {**LOAD, "is_running": False, "outcome": OUTCOME}
    server.tick(time_s=EPOCH_S + 123)
    expect(drawer.get_by_role("status")).to_have_text(
        "300 good answers/s · p50 4.00 ms · p99 12.5 ms · errors: 3 of 503"
    )
    expect(drawer.get_by_role("button", name="Start")).to_be_visible()


def test_load_that_is_refused_says_why(server: FakeServer) -> None:
    server.answers["POST /load"] = refusal(400, "there is no recorded request")
    page = opened(server, "Load")
    page.get_by_role("button", name="Start").click()
    expect(page.locator(".drawer .saying.bad")).to_have_text("there is no recorded request")


def test_a_profile_is_shown_in_a_frame_that_may_do_nothing_to_the_page(server: FakeServer) -> None:
    script = "try { parent.document.title = 'mine' } catch { document.querySelector('h1').append(', kept out') }"
    html = f"<!doctype html><title>p</title><body><h1>inference</h1><script>{script}</script>"
    server.answers["POST /profile"] = lambda route: route.fulfill(content_type="text/html", body=html)
    page = opened(server, "Profile")
    drawer = page.get_by_role("region", name="Profile")
    drawer.get_by_role("spinbutton", name="seconds to record").fill("2")
    drawer.get_by_role("button", name="Record").click()
    expect(drawer.frame_locator("iframe").get_by_role("heading")).to_have_text("inference, kept out")
    expect(drawer.frame_locator("iframe").locator("body")).to_have_attribute("data-jp-theme-light", "true")
    assert page.title() == "lab"
    assert server.calls("POST", "/profile") == [{"seconds": 2}]
    with page.expect_popup() as popup:
        drawer.get_by_role("button", name="Open in a tab").click()
    expect(popup.value.get_by_role("heading")).to_have_text("inference")


def test_the_lines_that_lead_to_a_failure_are_copied(server: FakeServer) -> None:
    failed = worker(1, last_error="Traceback\nValueError: bad row", last_error_place="a.ipynb, cell 7, line 12")
    server.endpoint["workers"] = [worker(0, state="HELD", held=held(0)), failed]
    page = opened(server, "Debug")
    drawer = page.get_by_role("region", name="Debug")
    expect(drawer.get_by_role("heading")).to_have_text(
        ["Worker 0 is held", "The last error of worker 1 at a.ipynb, cell 7, line 12"]
    )
    expect(drawer.locator("pre")).to_have_text("Traceback\nValueError: bad row")
    lines = ["%serve debug digits --worker 0", "nbserve attach digits --worker 0", "%serve debug digits --last-error"]
    for line in lines:
        drawer.get_by_title(f"copy: {line}").click()
        assert page.evaluate("navigator.clipboard.readText()") == line


def test_the_log_goes_on_while_it_is_open(server: FakeServer) -> None:
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url.partition("?")[2])
        number = len(asked)
        text = f"line {number}" if number < 3 else "boom"
        level = "INFO" if number < 3 else "ERROR"
        line = {
            "number": 10 * number,
            "time_s": EPOCH_S,
            "level": level,
            "endpoint": "digits",
            "worker": 1,
            "text": text,
        }
        route.fulfill(json=[line])

    server.answers["GET /logs"] = answer
    page = opened(server, "Logs")
    expect(page.get_by_role("log")).to_contain_text("[1] line 1")
    expect(page.get_by_role("log").locator(".error")).to_contain_text("boom")
    assert asked[:3] == [f"lines=200&after={after}&server=4711" for after in (0, 10, 20)]
    page.get_by_role("log").press("Escape")
    expect(page.get_by_role("log")).to_be_hidden()
    expect(page.get_by_role("button", name="Logs")).to_be_focused()
    expect(page.get_by_role("button", name="Logs")).to_have_attribute("aria-expanded", "false")


def test_it_asks_before_it_stops(server: FakeServer) -> None:
    page = server.live()
    stop = page.get_by_role("button", name="Stop", exact=True)
    stop.click()
    question = page.get_by_role("group", name="Stop it?")
    expect(question.get_by_role("button", name="no")).to_be_focused()
    question.get_by_role("button", name="no").click()
    expect(stop).to_be_focused()
    stop.press("Enter")
    page.keyboard.press("Escape")
    expect(question).to_be_hidden()
    assert not server.calls("DELETE")
    stop.press("Enter")
    question.get_by_role("button", name="yes").click()
    expect(question).to_contain_text("stopping…")
    assert server.calls("DELETE") == [None]
    server.say({"event": "gone"})
    expect(page.locator("header .state")).to_have_text("stopped")
    expect(page.locator(".presence")).to_have_text(
        "to start it: run its %%serve cell again, or nbserve serve /home/ann/.cache/nbserve/bundles/digits-3f9c2a1b"
    )
    expect(question).to_be_hidden()
    expect(stop).to_be_disabled()
    expect(page.get_by_role("slider", name="Max batch size")).to_be_disabled()
    expect(page.locator(".queue .figure b")).not_to_have_text("0")

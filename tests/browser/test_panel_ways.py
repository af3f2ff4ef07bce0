"""The two ways the panel talks: through Jupyter's server, and through the kernel; and what it does without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.panels import FakeServer, refusal

pytestmark = pytest.mark.browser

CALLS = "fake.sent.filter((message) => message.op === 'call')"


def test_jupyter_knows_who_asks(server: FakeServer) -> None:
    server.config["token"] = "a+b"
    page = server.live()
    page.get_by_role("button", name="more workers").click()
    expect(page.locator(".stepper output")).to_have_text("3")
    page.wait_for_function(
        "document.querySelector('#panel > div').shadowRoot.querySelectorAll('.pending').length === 0"
    )
    patch = server.headers[[asked[0] for asked in server.asked].index("PATCH")]
    assert patch["x-xsrftoken"] == "2|abc"
    assert patch["authorization"] == "token a+b"
    path = "/user/ann/nbserve/api/endpoints/digits/stream"
    assert server.addresses == [f"ws://localhost{path}?server=4711&token=a%2Bb"]
    assert page.evaluate("fake.sent") == []


def test_a_lost_connection_comes_back(server: FakeServer) -> None:
    page = server.live()
    server.hang_up()
    expect(page.locator(".presence")).to_have_text("reconnecting… these are the last values")
    expect(page.locator(".stepper button").first).to_be_disabled()
    expect(page.locator(".panel")).to_have_attribute("data-presence", "live")
    server.tick(queued=88)
    expect(page.locator(".queue .figure b")).to_have_text("88")
    assert len(server.addresses) == 2


def test_an_endpoint_that_went_without_a_word_is_gone_until_it_is_served_again(server: FakeServer) -> None:
    page = server.live()
    server.knows = False
    server.hang_up()
    expect(page.locator("header .state")).to_have_text("stopped")
    server.knows = True
    expect(page.locator("header .state")).to_have_text("ready")
    expect(page.get_by_role("slider", name="Max batch size")).to_be_enabled()


def test_without_the_extension_it_talks_through_the_kernel(server: FakeServer) -> None:
    server.knows = False
    server.open()
    page = server.page
    page.wait_for_function("fake.sent.some((message) => message.op === 'follow')")
    tell(server, server.begin())
    tell(server, server.stats(throughput=321.0))
    expect(page.locator(".presence")).to_have_text("through the kernel: waits while a cell runs")
    expect(page.locator(".throughput .figure").first).to_have_text("321/s")
    page.get_by_role("button", name="more workers").click()
    call = wait_for_call(server)
    assert (call["method"], call["path"], call["body"]) == ("PATCH", "", {"workers": 3})
    server.configure(workers=3)
    reply(server, call, server.endpoint)
    expect(page.locator(".stepper output")).to_have_text("3")
    expect(page.locator(".knob.pending")).to_have_count(0)
    page.evaluate("stop()")
    assert page.evaluate("fake.sent.at(-1).op") == "unfollow"
    expect(page.locator(".panel")).to_have_count(0)


def test_bytes_come_through_the_kernel_too(server: FakeServer) -> None:
    server.knows = False
    server.open()
    page = server.page
    page.wait_for_function("fake.sent.some((message) => message.op === 'follow')")
    tell(server, server.stats())
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download").click()
        call = wait_for_call(server)
        message = {"op": "reply", "id": call["id"], "status": 200, "content_type": "application/gzip", "body": None}
        page.evaluate("reply => fake.say(reply, [new DataView(new Uint8Array([31, 139, 7]).buffer)])", message)
    assert (call["method"], call["path"]) == ("GET", "/bundle")
    assert Path(waiting.value.path()).read_bytes() == b"\x1f\x8b\x07"


def test_a_kernel_that_falls_silent_is_asked_again(server: FakeServer) -> None:
    server.knows = False
    page = server.page
    page.clock.install()
    server.open()
    page.wait_for_function("fake.sent.some((message) => message.op === 'follow')")
    tell(server, server.stats())
    expect(page.locator(".panel")).to_have_attribute("data-presence", "live")
    page.clock.fast_forward(6000)
    expect(page.locator(".panel")).to_have_attribute("data-presence", "lost")
    expect(page.locator(".presence")).to_have_text("waiting for the kernel… these are the last values")
    assert page.evaluate("fake.sent.map((message) => message.op)") == ["follow", "follow"]
    tell(server, server.stats())
    expect(page.locator(".panel")).to_have_attribute("data-presence", "live")


def test_the_side_panel_needs_no_kernel(server: FakeServer) -> None:
    server.open()
    page = server.page
    page.evaluate("stop()")
    place = {"name": "digits", "serverId": "815", "baseUrl": "/user/ann/"}
    page.evaluate("place => void (window.unmount = mount(document.getElementById('panel'), place))", place)
    expect(page.locator(".panel")).to_have_attribute("data-presence", "live")
    assert server.addresses[-1].endswith("stream?server=815")
    page.evaluate("unmount()")
    expect(page.locator(".panel")).to_have_count(0)


def test_what_goes_wrong_on_the_way_is_told(server: FakeServer) -> None:
    page = server.live()
    server.answers["GET /recorded"] = refusal(502, "the server of digits does not answer")
    page.get_by_role("button", name="Request").click()
    expect(page.locator(".drawer .saying.bad")).to_have_text("the server of digits does not answer")
    server.answers["GET /logs"] = lambda route: route.abort()
    page.get_by_role("button", name="Logs").click()
    expect(page.locator(".drawer:not([hidden]) .saying.bad")).to_have_text("Jupyter’s server cannot be reached")


def tell(server: FakeServer, line: dict[str, Any]) -> None:
    server.page.evaluate("line => fake.say({ op: 'line', line })", line)


def wait_for_call(server: FakeServer) -> dict[str, Any]:
    server.page.wait_for_function(f"{CALLS}.length > 0")
    call: dict[str, Any] = server.page.evaluate(f"{CALLS}.at(-1)")
    return call


def reply(server: FakeServer, call: dict[str, Any], body: Any) -> None:
    message = {"op": "reply", "id": call["id"], "status": 200, "content_type": "application/json", "body": body}
    server.page.evaluate("reply => fake.say(reply)", message)

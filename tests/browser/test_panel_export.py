"""The drawer that exports: what is asked for, how far it is, what came of it, and what can be taken along."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.panels import EPOCH_S, FakeServer, Json, refusal

pytestmark = pytest.mark.browser

RUNNING: Json = {
    "directory": "/home/ann/notebooks/out",
    "build": "digits:2",
    "gpu": False,
    "began_s": EPOCH_S + 120,
    "is_running": True,
    "lines": ["checking the bundle of digits", "copying the bundle, 1.2 MB"],
    "result": None,
    "error": None,
}
RESULT: Json = {
    "name": "digits",
    "version": "3f9c2a1b",
    "path": "/home/ann/notebooks/out",
    "files": 31,
    "size_bytes": 3 * 2**20,
    "proven": 12,
    "proof": "started in a clean process, it answered 12 recorded requests as in the notebook",
    "image": "digits:2",
    "image_bytes": 2**30,
    "notes": ["torch comes from the CPU index"],
    "commands": ["docker run -p 8080:8080 digits:2", "nbserve verify http://127.0.0.1:8080 out/golden.jsonl"],
}


def drawer_of(page: Page) -> Locator:
    page.get_by_role("button", name="Export", exact=True).first.click()
    return page.get_by_role("region", name="Export")


def test_it_goes_from_a_wish_to_a_result(server: FakeServer) -> None:
    def start(route: Route) -> None:
        server.export = RUNNING
        route.fulfill(json=RUNNING)

    server.answers["POST /export"] = start
    page = server.live()
    drawer = drawer_of(page)
    folder, tag = drawer.get_by_role("textbox", name="folder"), drawer.get_by_role("textbox", name="image tag")
    expect(folder).to_have_value("digits-export")
    folder.fill("out")
    tag.fill("digits:2")
    drawer.get_by_role("combobox", name="runs on").select_option("cpu")
    tag.press("Enter")
    progress = drawer.get_by_role("log", name="progress of the export")
    expect(progress).to_have_text("checking the bundle of digits\ncopying the bundle, 1.2 MB")
    assert server.calls("POST", "/export") == [{"directory": "out", "build": "digits:2", "gpu": False}]
    server.tick(time_s=EPOCH_S + 127.4)
    expect(drawer.get_by_role("status").first).to_have_text("exporting to /home/ann/notebooks/out\u2026 7 s")
    expect(drawer.get_by_role("button", name="Stop")).to_be_enabled()
    server.export = {**RUNNING, "is_running": False, "result": RESULT}
    server.tick()
    expect(progress).to_be_hidden()
    expect(drawer).to_contain_text("31 files \u00b7 3.00 MiB \u00b7 image digits:2, 1.00 GiB")
    expect(drawer).to_contain_text("answered 12 recorded requests as in the notebook")
    expect(drawer).to_contain_text("note: torch comes from the CPU index")
    copy = drawer.get_by_role("button", name="copy").nth(1)
    copy.click()
    assert page.evaluate("navigator.clipboard.readText()") == "docker run -p 8080:8080 digits:2"
    copy.focus()
    server.tick()
    expect(copy).to_be_focused()
    expect(drawer.get_by_role("button", name="Export", exact=True)).to_be_enabled()


def test_a_page_that_is_loaded_again_finds_it(server: FakeServer) -> None:
    server.export = RUNNING
    page = server.live()
    drawer = drawer_of(page)
    expect(drawer.get_by_role("log", name="progress of the export")).to_contain_text("copying the bundle")
    expect(drawer.get_by_role("textbox", name="folder")).to_have_value("/home/ann/notebooks/out")
    expect(drawer.get_by_role("combobox", name="runs on")).to_have_value("cpu")
    server.answers["DELETE /export"] = lambda route: route.fulfill(
        json={**RUNNING, "is_running": False, "error": "ended before it was done"}
    )
    drawer.get_by_role("button", name="Stop").click()
    assert server.calls("DELETE", "/export") == [None]


def test_what_went_wrong_is_shown_in_full(server: FakeServer) -> None:
    text = "digits answers a recorded request in another way:\n  expected 3\n  answered 4"
    server.export = {**RUNNING, "is_running": False, "error": text}
    page = server.live()
    drawer = drawer_of(page)
    expect(drawer.get_by_role("alert")).to_have_text(text)
    expect(drawer.locator(".saying.bad")).to_have_text("not exported")
    expect(drawer.get_by_role("log", name="progress of the export")).to_be_visible()
    server.answers["POST /export"] = refusal(409, "digits is being exported already")
    drawer.get_by_role("button", name="Export", exact=True).click()
    expect(drawer.locator(".saying.bad")).to_have_text("digits is being exported already")


def test_the_folder_and_the_bundle_are_taken_along(server: FakeServer) -> None:
    for path, body in (("/bundle", b"\x1f\x8bbundle"), ("/export", b"\x1f\x8bfolder")):
        server.answers[f"GET {path}"] = lambda route, body=body: route.fulfill(
            content_type="application/gzip", body=body
        )
    server.export = {**RUNNING, "is_running": False, "result": RESULT}
    page = server.live()
    drawer = drawer_of(page)
    for button, name, body in (
        ("Download the bundle", "digits-3f9c2a1b.tar.gz", b"\x1f\x8bbundle"),
        ("Download the folder", "out.tar.gz", b"\x1f\x8bfolder"),
    ):
        with page.expect_download() as waiting:
            drawer.get_by_role("button", name=button).click()
        assert waiting.value.suggested_filename == name
        assert Path(waiting.value.path()).read_bytes() == body

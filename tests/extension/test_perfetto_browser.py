"""A real browser opens a trace in the Perfetto UI, handed over by another page, with nothing from outside."""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect

from .conftest import TOKEN, Jupyter

pytestmark = pytest.mark.process

LIMIT_MS = 120_000

TRACE = {
    "traceEvents": [
        {"ph": "M", "pid": 7, "tid": 7, "name": "process_name", "args": {"name": "worker 0"}},
        {"ph": "X", "pid": 7, "tid": 7, "ts": 0, "dur": 5000, "name": "nbserve.batch 1"},
        {"ph": "X", "pid": 7, "tid": 7, "ts": 100, "dur": 3000, "name": "aten::linear"},
    ]
}

# What the viewer's button does: ask until the UI answers, then hand it the trace.
OPEN = """([address, trace]) => {
    const ui = window.open(address);
    const timer = setInterval(() => ui.postMessage("PING", "*"), 100);
    window.addEventListener("message", (event) => {
        if (event.source !== ui || event.data !== "PONG" || window.answered) return;
        window.answered = true;
        clearInterval(timer);
        const buffer = new TextEncoder().encode(trace).buffer;
        ui.postMessage({perfetto: {buffer, title: "handed over", localOnly: true}}, "*", [buffer]);
    });
}"""

FRAME = "address => document.body.append(Object.assign(document.createElement('iframe'), {src: address}))"


def test_a_trace_is_handed_over_and_shown_offline(jupyter: Jupyter, browser: Browser) -> None:
    with browser.new_context() as context:
        context.set_default_timeout(LIMIT_MS)
        answered: list[str] = []
        context.on("response", lambda response: answered.append(response.url))
        page = context.new_page()
        page.goto(f"{jupyter.url}login?token={TOKEN}")
        with page.expect_popup() as opened:
            page.evaluate(OPEN, [f"{jupyter.url}nbserve/perfetto/#!/viewer?hideSidebar=true", json.dumps(TRACE)])
        expect(opened.value).to_have_title(re.compile("^handed over"), timeout=LIMIT_MS)
        opened.value.get_by_text("worker 0").first.wait_for()
    places = {urlsplit(url).netloc for url in answered if urlsplit(url).scheme not in ("data", "blob")}
    assert places == {urlsplit(jupyter.url).netloc}


def test_a_page_of_another_site_cannot_frame_the_ui(jupyter: Jupyter, browser: Browser) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{jupyter.url.replace('127.0.0.1', 'localhost')}login")
        with page.expect_console_message(lambda message: "frame-ancestors" in message.text, timeout=LIMIT_MS):
            page.evaluate(FRAME, f"{jupyter.url}nbserve/perfetto/?token={TOKEN}")

"""A real browser on pages that are files; without chromium these tests are skipped, but never in CI."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from nbserve.recording import Recording
from nbserve.trace import diagnose, page, stitch
from nbserve.trace.model import Timeline
from nbserve.trace.pack import pack
from tests.browser.panels import FakeServer
from tests.browser.recordings import cpu_recording
from tests.trace.gpu_traces import thick_bars, thin_stripes

RECORDINGS: dict[str, Callable[[Path], Recording]] = {
    "cpu": cpu_recording,
    "stripes": lambda folder: thin_stripes(folder, workers=2),
    "bars": thick_bars,
}
# Not `wait_for_function`: the page forbids the `eval` that it waits with.
SHOWN = "main[aria-busy=false]"

Open = Callable[..., Page]


@pytest.fixture(scope="session")
def timelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Timeline]:
    """A real CPU recording, and two that look like a GPU's."""
    return {name: stitch.timeline(make(tmp_path_factory.mktemp(name))) for name, make in RECORDINGS.items()}


@pytest.fixture(scope="session")
def packs(timelines: dict[str, Timeline]) -> dict[str, bytes]:
    return {name: pack(timeline, diagnose.findings(timeline)) for name, timeline in timelines.items()}


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Makes pages; an error in one of their scripts fails the test."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def make(width: int = 1000, height: int = 900, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        made = context.new_page()
        made.on("pageerror", lambda error: errors.append(str(error)))
        return made

    yield make
    for context in contexts:
        context.close()
    assert not errors


@pytest.fixture
def server(new_page: Callable[..., Page]) -> FakeServer:
    """What the live panel talks to, with two minutes behind it."""
    return FakeServer(new_page(permissions=["clipboard-read", "clipboard-write"]), history=239, ticks=239)


@pytest.fixture
def open_trace(new_page: Callable[..., Page], packs: dict[str, bytes], tmp_path: Path) -> Open:
    """Opens one of the recordings as a file of its own."""

    def opened(name: str, **options: Any) -> Page:
        path = tmp_path / f"{name}.html"
        path.write_text(page.document(packs[name], title=name), encoding="utf-8")
        view = new_page(**options)
        view.goto(path.as_uri())
        view.wait_for_selector(SHOWN)
        return view

    return opened

"""JupyterLab's side panel with real servers: what it lists, opens and stops."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, Request, expect

from nbserve.bundle.bundle import Bundle
from nbserve.deployment import Server
from nbserve.verbs import Endpoint
from tests.lab import DARK, LIGHT, Lab, LabPage, running_lab

pytestmark = [pytest.mark.browser, pytest.mark.process]

Serve = Callable[..., Endpoint]
LIMIT_MS = 30_000
NARROW_PX = 180

DOUBLE = """
class H(nbserve.Handler):
    def handle(self, requests, context):
        return [2 * x for x in requests]
"""
TALKATIVE = """
class H(nbserve.Handler):
    def handle(self, requests, context):
        for x in requests:
            for number in range(x):
                print(f"{number + 1} of {x}")
        return requests
"""
# What a reader would have to scroll sideways for.
WIDER = """(node, px) => [...node.querySelectorAll("*")]
    .filter((each) => each.getBoundingClientRect().right > node.getBoundingClientRect().left + px)
    .map((each) => each.outerHTML)"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


# Not the one that the panel's tests play in this folder.
@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server.start().ready()
    yield server
    server.stop()


@pytest.fixture
def deploy(server: Server, make_bundle: Callable[..., Bundle]) -> Serve:
    """Serve the class `H` of a cell on the module's server, until the test stops it."""
    return lambda text, name: server.deploy(make_bundle(text, name).path)


@pytest.fixture
def opened(lab: Lab, browser: Browser) -> Iterator[LabPage]:
    """Lab with the side panel in front."""
    with lab.open(browser) as opened:
        opened.command("nbserve:show-endpoints")
        yield opened


@pytest.fixture
def page(opened: LabPage) -> Page:
    return opened.page


def test_an_endpoint_is_listed_with_its_state_and_followed(page: Page, serve_cell: Serve, server: Server) -> None:
    endpoint = serve_cell(DOUBLE, "digits", workers=2)
    row = _row(page, "digits")
    expect(row).to_contain_text("ready, 2 of 2 workers")
    expect(row).to_contain_text("0 answers, 0 queued")
    endpoint.predict(21)
    expect(row).to_contain_text("1 answer, 0 queued")
    group = _group(page, server)
    expect(group).to_contain_text(f"server {server.run_file.pid}, ends with its kernel")
    expect(group.get_by_role("listitem")).to_have_count(1)


def test_a_click_opens_the_panel_and_another_one_brings_it_back(opened: LabPage, serve_cell: Serve) -> None:
    serve_cell(DOUBLE, "digits")
    page = opened.page
    _button(page, "digits").click()
    tab = _tab(page, "digits")
    expect(tab).to_have_attribute("aria-selected", "true")
    expect(page.locator(".nbserve-panel")).to_contain_text("throughput", ignore_case=True, timeout=LIMIT_MS)
    _button(page, "Logs of digits").click()
    expect(tab).to_have_attribute("aria-selected", "false")
    _button(page, "digits").click()
    expect(tab).to_have_attribute("aria-selected", "true")
    expect(page.locator(".nbserve-panel")).to_have_count(1)


def test_tabs_are_there_again_after_a_reload(opened: LabPage, serve_cell: Serve) -> None:
    serve_cell(DOUBLE, "digits")
    page = opened.page
    _button(page, "Logs of digits").click()
    _button(page, "digits").click()
    expect(page.locator(".nbserve-panel")).to_contain_text("throughput", ignore_case=True, timeout=LIMIT_MS)
    # Lab writes down where its tabs are when it has been left alone for a moment.
    with page.expect_response(lambda answer: "/api/workspaces" in answer.url and answer.request.method == "PUT"):
        pass
    opened.reload()
    expect(_tab(page, "digits: logs")).to_be_visible()
    expect(page.locator(".nbserve-panel")).to_contain_text("throughput", ignore_case=True, timeout=LIMIT_MS)
    expect(_row(page, "digits")).to_contain_text("ready")


def test_logs_are_followed_until_their_reader_scrolls_back(page: Page, deploy: Serve) -> None:
    endpoint = deploy(TALKATIVE, "talker")
    endpoint.predict(200)
    _button(page, "Logs of talker").click()
    log = page.get_by_role("log", name="logs of talker")
    expect(log.get_by_text("200 of 200")).to_be_in_viewport()
    endpoint.predict(3)
    expect(log.get_by_text("3 of 3")).to_be_in_viewport()
    log.evaluate("lines => lines.scrollTop = 0")
    newest = _button(page, "newest lines")
    expect(newest).to_be_visible()
    endpoint.predict(4)
    expect(log.get_by_text("4 of 4")).to_be_attached()
    expect(log.get_by_text("4 of 4")).not_to_be_in_viewport()
    newest.click()
    expect(log.get_by_text("4 of 4")).to_be_in_viewport()
    endpoint.stop()
    expect(page.get_by_text("talker is not running any more")).to_be_visible()
    expect(log.get_by_text("4 of 4")).to_be_visible()


def test_an_endpoint_is_stopped_by_who_confirms_it(page: Page, deploy: Serve, server: Server) -> None:
    deploy(DOUBLE, "digits")
    _button(page, "Stop digits").click()
    _dialog(page).get_by_role("button", name="Cancel").click()
    expect(_row(page, "digits")).to_contain_text("ready")
    _button(page, "Stop digits").click()
    expect(_dialog(page)).to_contain_text("Stop digits?")
    _dialog(page).get_by_role("button", name="Stop").click()
    expect(_row(page, "digits")).to_have_count(0)
    assert server.endpoints() == []
    expect(_group(page, server)).to_contain_text("no endpoints yet")


def test_a_detached_server_is_stopped_with_all_that_it_serves(
    page: Page, make_bundle: Callable[..., Bundle], wait_until: Callable[..., None]
) -> None:
    detached = Server.start(detach=True, notebook="/home/ann/old.ipynb").ready()
    try:
        detached.deploy(make_bundle(DOUBLE, "iris").path)
        group = _group(page, detached)
        expect(group.get_by_role("heading", name="old.ipynb")).to_be_visible()
        expect(group).to_contain_text("detached, its kernel is gone")
        expect(_row(page, "iris")).to_contain_text("ready")
        _button(page, f"Stop server {detached.run_file.pid}").click()
        expect(_dialog(page)).to_contain_text("1 endpoint (iris)")
        _dialog(page).get_by_role("button", name="Stop").click()
        expect(group).to_have_count(0, timeout=LIMIT_MS)
        wait_until(lambda: not detached.is_alive())
    finally:
        detached.stop()


def test_a_detached_server_whose_notebook_is_open_is_no_orphan(lab: Lab, browser: Browser) -> None:
    notebook = lab.write_notebook("open.ipynb", ["1 + 1"])
    detached = Server.start(detach=True, notebook=str(notebook)).ready()
    try:
        with lab.open(browser, "open.ipynb") as opened:
            opened.command("nbserve:show-endpoints")
            group = _group(opened.page, detached)
            expect(group).to_contain_text("detached")
            expect(group).not_to_contain_text("its kernel is gone")
    finally:
        detached.stop()


def test_the_keyboard_does_it_all(opened: LabPage, deploy: Serve) -> None:
    deploy(DOUBLE, "digits")
    page = opened.page
    expect(_row(page, "digits")).to_contain_text("ready")
    opened.command("nbserve:show-endpoints")
    expect(_button(page, "digits")).to_be_focused()
    page.keyboard.press("Tab")
    expect(_button(page, "Logs of digits")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    _dialog(page).get_by_role("button", name="Stop").press("Enter")
    expect(_row(page, "digits")).to_have_count(0)
    expect(page.locator(".nbserve-servers")).to_be_focused()


def test_the_command_palette_shows_it(opened: LabPage) -> None:
    page = opened.page
    opened.command("filebrowser:activate")
    expect(page.get_by_role("region", name="Endpoints")).to_be_hidden()
    opened.command("apputils:activate-command-palette")
    page.keyboard.type("nbserve")
    page.locator(".lm-CommandPalette-item").filter(has_text="Show Endpoints").click()
    expect(page.get_by_role("region", name="Endpoints")).to_be_visible()


def test_nothing_is_asked_while_it_is_not_seen(opened: LabPage, serve_cell: Serve) -> None:
    serve_cell(DOUBLE, "digits")
    page = opened.page
    _button(page, "Logs of digits").click()
    opened.command("filebrowser:activate")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.partition("?")[0]))
    # The logs, which are seen, tell the time: one question a second.
    for _ in range(5):
        with page.expect_request(_is_for_logs):
            pass
    assert not [url for url in asked if url.endswith("/api/endpoints")]
    opened.command("nbserve:show-endpoints")
    with page.expect_request(lambda request: request.url.partition("?")[0].endswith("/api/endpoints")):
        pass


def test_a_failure_is_told_and_what_was_known_stays(opened: LabPage, serve_cell: Serve) -> None:
    serve_cell(DOUBLE, "digits")
    page = opened.page
    expect(_row(page, "digits")).to_contain_text("ready")
    opened.context.set_offline(True)
    failure = page.get_by_role("region", name="Endpoints").get_by_role("alert")
    expect(failure).to_contain_text("Jupyter's server does not answer")
    expect(_row(page, "digits")).to_be_visible()
    opened.context.set_offline(False)
    _button(page, "Refresh the endpoints").click()
    expect(failure).to_be_hidden()


def test_it_fits_into_a_narrow_area(page: Page, serve_cell: Serve) -> None:
    serve_cell(DOUBLE, "an-endpoint-with-a-long-name-and-no-space")
    expect(_row(page, "an-endpoint-with-a-long-name-and-no-space")).to_contain_text("ready")
    sidebar = page.get_by_role("region", name="Endpoints")
    # Narrower than Lab lets it be today.
    sidebar.evaluate("(node, px) => Object.assign(node.style, {minWidth: 0, maxWidth: `${px}px`})", NARROW_PX)
    assert sidebar.evaluate("node => node.clientWidth") == NARROW_PX
    assert sidebar.evaluate(WIDER, NARROW_PX) == []


def test_it_follows_the_theme(opened: LabPage) -> None:
    sidebar = opened.page.get_by_role("region", name="Endpoints")
    before = sidebar.evaluate("node => getComputedStyle(node).backgroundColor")
    opened.change_theme(DARK)
    expect(sidebar).not_to_have_css("background-color", before)
    opened.change_theme(LIGHT)
    expect(sidebar).to_have_css("background-color", before)


def test_without_a_server_it_says_how_to_start_one(tmp_path: Path, browser: Browser) -> None:
    nobody = tmp_path / "nobody"
    nobody.mkdir(mode=0o700)
    environ = {"NBSERVE_RUNTIME_DIR": str(nobody)}
    with running_lab(tmp_path, base_url="/", extra_environ=environ) as lab, lab.open(browser) as opened:
        opened.command("nbserve:show-endpoints")
        expect(opened.page.get_by_role("region", name="Endpoints")).to_contain_text("%%serve NAME")


def test_without_the_extension_it_says_what_to_install(tmp_path: Path, browser: Browser) -> None:
    config = tmp_path / ".jupyter" / "jupyter_config_dir" / "jupyter_server_config.json"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"ServerApp": {"jpserver_extensions": {"nbserve_extension": False}}}))
    with running_lab(tmp_path) as lab, lab.open(browser) as opened:
        opened.command("nbserve:show-endpoints")
        alert = opened.page.get_by_role("region", name="Endpoints").get_by_role("alert")
        expect(alert).to_contain_text("Install nbserve-torch where Jupyter runs")


def _group(page: Page, server: Server) -> Locator:
    return page.get_by_role("region", name=re.compile(f"^server {server.run_file.pid},"))


def _row(page: Page, name: str) -> Locator:
    return page.locator(".nbserve-servers li").filter(has=_button(page, name))


def _button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def _tab(page: Page, name: str) -> Locator:
    return page.get_by_role("tab", name=name, exact=True)


def _dialog(page: Page) -> Locator:
    return page.locator(".jp-Dialog")


def _is_for_logs(request: Request) -> bool:
    return "/logs?" in request.url

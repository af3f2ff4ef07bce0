"""The panel where it is used: in a real JupyterLab, with real kernels, on a real endpoint."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, Locator, expect

from nbserve.deployment import Server
from nbserve.verbs import Endpoint
from tests.lab import DARK, KERNEL, LIGHT, Lab, LabPage, add_kernel, running_lab
from tests.served import wait_until
from tests.server.conftest import Load, post

pytestmark = [pytest.mark.browser, pytest.mark.process]

ROOT = Path(__file__).parents[2]
BEFORE_SUBSHELLS = "ipykernel-6"
LIMIT_MS = 60_000

LOAD, SERVE, BUSY = range(3)
DIGITS = """%%serve digits --max-batch-size 16
import time
import nbserve

class Digits(nbserve.Handler):
    def handle(self, requests, context):
        if "stop here" in requests:
            breakpoint()
        time.sleep(0.002)
        return [[request] for request in requests]
"""
CELLS = ("%load_ext nbserve", DIGITS, "while True:\n    pass")
NO_EXTENSION = {"ServerApp": {"jpserver_extensions": {"nbserve_extension": False}}}


@dataclass(frozen=True)
class Notebook:
    """An open notebook whose cell `SERVE` has run."""

    page: LabPage
    endpoint: Endpoint

    @property
    def panel(self) -> Locator:
        return self.page.output(SERVE)

    @property
    def presence(self) -> Locator:
        return self.panel.locator(".presence")

    def throughput(self) -> float:
        text = self.panel.locator(".throughput .figure b").first.inner_text()
        return float(re.sub(r"[^0-9.]", "", text) or 0)

    def workers(self) -> Locator:
        return self.panel.get_by_role("row").filter(has_text=re.compile("cpu"))

    def brightness(self) -> float:
        """Of the panel's own ground, from 0 to 255."""
        ground = "element => getComputedStyle(element.closest('.panel')).backgroundColor"
        return float(re.findall(r"[0-9.]+", self.presence.evaluate(ground))[1])

    def is_busy(self) -> bool:
        return bool(self.page.page.evaluate(f"{KERNEL}?.status === 'busy'"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    modules = ROOT / ".venvs" / BEFORE_SUBSHELLS
    assert modules.is_dir(), "ipykernel 6 is not installed beside the other: run the tests with `make test`"
    add_kernel(folder, BEFORE_SUBSHELLS, modules)
    with running_lab(folder) as lab:
        yield lab


@pytest.fixture
def lab_without_extension(tmp_path: Path) -> Iterator[Lab]:
    config = tmp_path / ".jupyter" / "jupyter_config_dir"
    config.mkdir(parents=True)
    (config / "jupyter_server_config.json").write_text(json.dumps(NO_EXTENSION))
    with running_lab(tmp_path) as lab:
        yield lab


@contextmanager
def opened(lab: Lab, browser: Browser, kernel: str = "python3") -> Iterator[Notebook]:
    """A new notebook in Lab that serves `digits`; its kernel, and so its server, end with the block."""
    lab.write_notebook("t.ipynb", CELLS, kernel)
    before = {server.server_id for server in Server.find()}
    try:
        with lab.open(browser, "t.ipynb", height=1200) as page:
            page.run(LOAD)
            page.run(SERVE)
            [server] = [server for server in Server.find() if server.server_id not in before]
            yield Notebook(page, server.endpoint("digits"))
    finally:
        _end_kernels(lab)
        wait_until(lambda: {server.server_id for server in Server.find()} <= before)


@pytest.mark.parametrize("kernel", ["python3", BEFORE_SUBSHELLS])
def test_values_move_and_a_knob_acts_while_a_cell_runs(lab: Lab, browser: Browser, kernel: str) -> None:
    with opened(lab, browser, kernel) as notebook:
        expect(notebook.presence).to_have_text("live through Jupyter’s server")
        notebook.page.start(BUSY)
        notebook.page.wait_busy()
        with Load(notebook.endpoint.url, clients=4) as load:
            load.wait_for(50)
            wait_until(lambda: notebook.throughput() > 0)
            slider = notebook.panel.get_by_role("slider", name="Max batch size")
            slider.press("ArrowRight")
            wait_until(lambda: notebook.endpoint.settings["max_batch_size"] > 16)
            size = notebook.endpoint.settings["max_batch_size"]
            expect(slider).to_have_attribute("aria-valuetext", str(size))
            assert notebook.is_busy()
        notebook.page.interrupt()
        notebook.page.wait_idle()
    assert set(load.statuses) == {200}


def test_three_workers_and_back_under_load_lose_no_request(lab: Lab, browser: Browser) -> None:
    with opened(lab, browser) as notebook, Load(notebook.endpoint.url, clients=8) as load:
        load.wait_for(50)
        for more in (2, 3):
            notebook.panel.get_by_role("button", name="more workers").click()
            expect(notebook.panel.locator(".stepper output")).to_have_text(str(more))
        wait_until(lambda: _ready(notebook.endpoint) == 3)
        expect(notebook.workers()).to_have_count(3)
        load.wait_for(50)
        for fewer in (2, 1):
            notebook.panel.get_by_role("button", name="fewer workers").click()
            expect(notebook.panel.locator(".stepper output")).to_have_text(str(fewer))
        wait_until(lambda: len(notebook.endpoint.stats()["workers"]) == 1)
        expect(notebook.workers()).to_have_count(1)
        load.wait_for(50)
    assert set(load.statuses) == {200}


def test_a_held_worker_is_shown_with_the_line_that_attaches(lab: Lab, browser: Browser) -> None:
    with opened(lab, browser) as notebook:
        answers: list[tuple[int, object]] = []
        asking = threading.Thread(target=lambda: answers.append(post(notebook.endpoint.url, "stop here")))
        asking.start()
        row = notebook.workers().filter(has_text="held")
        expect(row).to_be_visible()
        notebook.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        row.get_by_role("button", name="%serve debug").click()
        copied = notebook.page.page.evaluate("navigator.clipboard.readText()")
        assert copied == "%serve debug digits --worker 0"
        notebook.endpoint.debug(commands="c")
        asking.join(60)
        expect(row).to_have_count(0)
    assert answers == [(200, ["stop here"])]


def test_it_follows_jupyters_theme(lab: Lab, browser: Browser) -> None:
    with opened(lab, browser) as notebook:
        assert notebook.brightness() > 200
        notebook.page.change_theme(DARK)
        wait_until(lambda: notebook.brightness() < 60)
        notebook.page.change_theme(LIGHT)
        wait_until(lambda: notebook.brightness() > 200)


def test_an_export_lands_beside_the_notebook(lab: Lab, browser: Browser) -> None:
    with opened(lab, browser) as notebook:
        notebook.endpoint.predict(1)
        notebook.panel.get_by_role("button", name="Export", exact=True).click()
        drawer = notebook.panel.get_by_role("region", name="Export")
        # A cell that runs does not stand in its way.
        notebook.page.start(BUSY)
        notebook.page.wait_busy()
        drawer.get_by_role("button", name="Export", exact=True).click()
        expect(drawer.get_by_role("log", name="progress of the export")).to_contain_text("digits")
        expect(drawer).to_contain_text("answered 1 recorded request as in the notebook", timeout=2 * LIMIT_MS)
        expect(drawer.locator(".outcome code").first).to_have_text(str(lab.folder / "digits-export"))
        assert notebook.is_busy()
        notebook.page.interrupt()
        notebook.page.wait_idle()
    assert "FROM " in (lab.folder / "digits-export" / "Dockerfile").read_text()


def test_a_saved_notebook_keeps_its_picture(lab: Lab, browser: Browser) -> None:
    with opened(lab, browser) as notebook:
        expect(notebook.presence).to_be_visible()
        expect(notebook.panel.locator("img")).not_to_be_visible()
        notebook.page.save()
        saved = nbformat.read(lab.folder / "t.ipynb", as_version=4)
    [picture] = [output for output in saved.cells[SERVE].outputs if "image/png" in output.get("data", {})]
    assert picture["data"]["text/plain"]
    # Under another name it is a notebook that nobody trusts.
    nbformat.write(saved, lab.folder / "sent.ipynb")
    with lab.open(browser, "sent.ipynb", height=1200) as page:
        shown = page.output(SERVE)
        expect(shown.locator("img")).to_be_visible()
        expect(shown).to_contain_text("digits")
        expect(shown).not_to_contain_text("Error")
        _end_kernels(lab)


@pytest.mark.parametrize("kernel", ["python3"])
def test_without_the_extension_the_kernel_carries_it(lab_without_extension: Lab, browser: Browser, kernel: str) -> None:
    with opened(lab_without_extension, browser, kernel) as notebook:
        expect(notebook.presence).to_have_text("through the kernel: waits while a cell runs")
        with Load(notebook.endpoint.url, clients=4) as load:
            load.wait_for(50)
            wait_until(lambda: notebook.throughput() > 0)
        notebook.panel.get_by_role("slider", name="Max batch size").press("ArrowRight")
        wait_until(lambda: notebook.endpoint.settings["max_batch_size"] > 16)


def _ready(endpoint: Endpoint) -> int:
    return sum(worker["state"] in ("READY", "BUSY") for worker in endpoint.stats()["workers"])


def _end_kernels(lab: Lab) -> None:
    for session in json.loads(lab.jupyter.get("api/sessions").body):
        lab.jupyter.get(f"api/sessions/{session['id']}", method="DELETE")

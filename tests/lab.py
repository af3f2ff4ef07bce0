"""A real JupyterLab in folders of its own, and a page of it driven as a person would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nbformat
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.extension.conftest import FOLDERS, TOKEN, Jupyter, url_when_up

STOP_LIMIT_S = 60
LIMIT_MS = 60_000
LIGHT, DARK = "JupyterLab Light", "JupyterLab Dark"
LAB_FOLDERS = (*FOLDERS, "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR", "MPLCONFIGDIR")

# No pop-up of news, and every cell in the page, however long the notebook is.
SETTINGS: dict[str, dict[str, Any]] = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
# The kernel of the notebook in front, as Lab knows it.
KERNEL = "window.jupyterapp.shell.currentWidget?.context?.sessionContext?.session?.kernel"
RUN = """([index, isAwaited]) => {
    const app = window.jupyterapp;
    app.shell.currentWidget.content.activeCellIndex = index;
    const done = app.commands.execute("notebook:run-cell");
    return isAwaited ? done.then(() => null) : null;
}"""


@contextmanager
def running_lab(
    folder: Path, base_url: str = "/user/ann/", theme: str = LIGHT, extra_environ: Mapping[str, str] | None = None
) -> Iterator[Lab]:
    """JupyterLab with `folder` as its root; it and its kernels are gone afterwards."""
    private = folder / ".jupyter"
    environ = {**os.environ, **{name: str(private / name.lower()) for name in LAB_FOLDERS}, **(extra_environ or {})}
    _write_settings(Path(environ["JUPYTERLAB_SETTINGS_DIR"]), theme)
    arguments = [f"--ServerApp.base_url={base_url}", f"--ServerApp.root_dir={folder}", "--ServerApp.ip=127.0.0.1"]
    arguments += ["--ServerApp.port=0", f"--IdentityProvider.token={TOKEN}", "--no-browser", "--allow-root"]
    command = [sys.executable, "-m", "jupyterlab", *arguments, "--LabApp.expose_app_in_browser=True"]
    log = private / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environ, cwd=folder, stdout=output, stderr=output)
        try:
            yield Lab(Jupyter(url_when_up(process, Path(environ["JUPYTER_RUNTIME_DIR"]), log), log), folder)
        finally:
            process.terminate()
            process.wait(timeout=STOP_LIMIT_S)


def add_kernel(folder: Path, name: str, modules: Path) -> None:
    """Offer a kernel in the Lab that is about to run in `folder`: a Python that finds what is in `modules` first."""
    place = folder / ".jupyter" / "jupyter_data_dir" / "kernels" / name
    place.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": name, "language": "python", "env": {"PYTHONPATH": str(modules)}}
    (place / "kernel.json").write_text(json.dumps(spec))


def _write_settings(folder: Path, theme: str) -> None:
    for name, values in {**SETTINGS, "apputils-extension/themes": {"theme": theme}}.items():
        path = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab; `jupyter` talks to its server without a browser."""

    jupyter: Jupyter
    folder: Path

    def write_notebook(self, name: str, cells: Sequence[str], kernel: str = "python3") -> Path:
        """A notebook of code cells in Lab's root folder."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
        notebook.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
        path = self.folder / name
        nbformat.write(notebook, path)
        return path

    @contextmanager
    def open(
        self, browser: Browser, notebook: str | None = None, *, width: int = 1280, height: int = 900, **options: Any
    ) -> Iterator[LabPage]:
        """A page with Lab in it, restored; with a notebook, when its kernel is idle.

        `options` are those of a playwright context. An error in one of the page's scripts fails the test.
        """
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(LIMIT_MS)
        try:
            page = LabPage(context.new_page(), context)
            tree = f"/tree/{notebook}" if notebook else ""
            page.page.goto(f"{self.jupyter.url}lab/workspaces/auto-t{tree}?token={TOKEN}&reset")
            page.wait_restored()
            if notebook:
                page.wait_idle()
            else:
                # It comes after everything else, and takes the focus.
                page.page.wait_for_function("window.jupyterapp.shell.activeWidget?.id.startsWith('launcher')")
            yield page
        finally:
            context.close()
        assert page.errors == []

    def address(self, path: str) -> str:
        """What a page of this server asks for `path` below base_url."""
        return urlsplit(self.jupyter.url + path).path


@dataclass
class LabPage:
    page: Page
    context: BrowserContext
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def wait_restored(self) -> None:
        """Until all plugins are started and the tabs of before are back."""
        self.page.wait_for_function("window.jupyterapp?.restored.then(() => true)")

    def wait_idle(self, limit_s: float = LIMIT_MS / 1000) -> None:
        """Until the kernel of the notebook in front has nothing to do."""
        self.page.wait_for_function(f"{KERNEL}?.status === 'idle'", timeout=limit_s * 1000)

    def wait_busy(self, limit_s: float = LIMIT_MS / 1000) -> None:
        """Until the kernel of the notebook in front runs a cell."""
        self.page.wait_for_function(f"{KERNEL}?.status === 'busy'", timeout=limit_s * 1000)

    def run(self, cell: int) -> None:
        """Run a cell, counted from 0, to its end."""
        self.page.evaluate(RUN, [cell, True])

    def start(self, cell: int) -> None:
        """Run a cell, and do not wait for it."""
        self.page.evaluate(RUN, [cell, False])

    def interrupt(self) -> None:
        self.command("notebook:interrupt-kernel")

    def command(self, name: str, **arguments: Any) -> None:
        """Run one of Lab's commands, to its end."""
        self.page.evaluate(
            "([name, given]) => window.jupyterapp.commands.execute(name, given).then(() => null)", [name, arguments]
        )

    def change_theme(self, name: str) -> None:
        """Change Lab's theme and wait until it is loaded: one that is asked for meanwhile gets lost."""
        self.command("apputils:change-theme", theme=name)
        expect(self.page.locator("body")).to_have_attribute("data-jp-theme-name", name)

    def cell(self, index: int) -> Locator:
        return self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook .jp-Cell").nth(index)

    def output(self, index: int) -> Locator:
        """What a cell shows below itself."""
        return self.cell(index).locator(".jp-OutputArea")

    def save(self) -> None:
        self.command("docmanager:save")

    def reload(self) -> None:
        """Load the page anew, as a person does with F5."""
        self.page.reload()
        self.wait_restored()

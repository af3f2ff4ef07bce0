"""JupyterLab's side panel as pip installs it: what Lab finds is what is committed, and enabled."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nbserve

EXTENSION = Path(__file__).parent.parent.parent / "extension"
BUILT = EXTENSION / "nbserve_extension" / "labextension"
INSTALLED = Path(sys.prefix) / "share" / "jupyter" / "labextensions" / "nbserve"
ANSI = re.compile("\x1b\\[[0-9;]*m")


def test_what_is_installed_is_what_is_committed() -> None:
    committed = {**_files(BUILT), "install.json": (EXTENSION / "js" / "install.json").read_bytes()}
    installed = _files(INSTALLED)
    assert installed.keys() == committed.keys(), "run `make .venv/.installed`"
    assert installed == committed, "run `make .venv/.installed`"


def test_it_has_the_version_of_the_package() -> None:
    assert json.loads((BUILT / "package.json").read_text())["version"] == nbserve.__version__


def test_it_takes_lab_s_packages_from_lab() -> None:
    """A second copy of Lab's code would know nothing of the running application."""
    licences = json.loads((BUILT / "static" / "third-party-licenses.json").read_text())
    bundled = {package["name"] for package in licences["packages"]}
    assert bundled == {"css-loader", "style-loader"}


@pytest.mark.process
def test_jupyter_says_that_it_is_enabled() -> None:
    command = [sys.executable, "-m", "jupyter", "labextension", "list"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    listed = ANSI.sub("", process.stdout + process.stderr)
    assert f"nbserve v{nbserve.__version__} enabled OK (python, nbserve-torch)" in listed


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

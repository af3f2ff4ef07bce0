"""`pip install` alone enables the extension, and it is quiet."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import FOLDERS, Jupyter

pytestmark = pytest.mark.process


def test_jupyter_lists_it_as_ok(tmp_path: Path) -> None:
    environ = {**os.environ, **{name: str(tmp_path / name.lower()) for name in FOLDERS}}
    command = [sys.executable, "-m", "jupyter_server.extension.serverextension", "list"]
    done = subprocess.run(command, check=False, env=environ, capture_output=True, text=True, timeout=120)
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    assert done.returncode == 0, said
    assert re.search(r"nbserve_extension enabled", said)
    assert re.search(r"nbserve_extension\s.*OK", said)


def test_it_is_loaded_without_a_warning(jupyter: Jupyter) -> None:
    log = jupyter.log.read_text()
    assert "nbserve_extension | extension was successfully loaded." in log
    assert "Warning" not in log

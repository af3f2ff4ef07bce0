"""Shells and kernels for the tests of the notebook face, with Jupyter's folders in a temporary place."""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell


@pytest.fixture(scope="session", autouse=True)
def jupyter_dirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Nothing of the user's Jupyter or IPython configuration is read or written."""
    root = tmp_path_factory.mktemp("jupyter")
    names = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR")
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setenv(name, str(root / name.lower()))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield root


@pytest.fixture
def shell(jupyter_dirs: Path) -> Iterator[InteractiveShell]:
    """A plain shell without history, as in a terminal."""
    shell = InteractiveShell()
    shell.history_manager.enabled = False
    yield shell
    atexit.unregister(shell.atexit_operations)
    shell.atexit_operations()

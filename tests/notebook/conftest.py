"""Shells and kernels for the tests of the notebook face, with Jupyter's folders in a temporary place."""

from __future__ import annotations

import atexit
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from jupyter_client.manager import KernelManager

ANSI = re.compile("\x1b\\[[0-9;]*m")
CELL_LIMIT_S = 120


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


@dataclass
class Outcome:
    """What one cell did: its displays (as they stand at the end), printed text, value and error."""

    status: str = ""
    displays: list[dict[str, Any]] = field(default_factory=list)
    printed: str = ""
    value: str | None = None
    error: str = ""
    error_name: str = ""

    @property
    def text(self) -> str:
        """Everything a reader sees, in its plain form."""
        shown = [display["data"].get("text/plain", "") for display in self.displays]
        return "\n".join([self.printed, *shown, self.value or "", self.error])

    def take(self, message: dict[str, Any]) -> None:
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            self.printed += content["text"]
        elif kind == "display_data":
            self.displays.append(content)
        elif kind == "update_display_data":
            self._update(content)
        elif kind == "execute_result":
            self.value = content["data"]["text/plain"]
        elif kind == "error":
            self.error_name = content["ename"]
            self.error = ANSI.sub("", "\n".join(content["traceback"]))

    def _update(self, content: dict[str, Any]) -> None:
        known = content["transient"]["display_id"]
        for display in self.displays:
            if display["transient"].get("display_id") == known:
                display["data"] = content["data"]


class Kernel:
    """A real kernel, driven as a notebook front end does."""

    def __init__(self, folder: Path) -> None:
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(folder))
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    @property
    def pid(self) -> int:
        return int(self.manager.provisioner.process.pid)

    def run(self, code: str, on_output: Callable[[Outcome], None] | None = None) -> Outcome:
        """Run a cell to its end; `on_output` is called after each output, with what there is so far."""
        outcome = Outcome()

        def hook(message: dict[str, Any]) -> None:
            outcome.take(message)
            if on_output is not None:
                on_output(outcome)

        reply = self.client.execute_interactive(code, timeout=CELL_LIMIT_S, output_hook=hook, allow_stdin=False)
        outcome.status = reply["content"]["status"]
        return outcome

    def ok(self, code: str) -> Outcome:
        outcome = self.run(code)
        assert outcome.status == "ok", outcome.text
        return outcome

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


@pytest.fixture
def new_kernel(tmp_path: Path) -> Iterator[Callable[[], Kernel]]:
    """Starts kernels with the extension loaded; those that still run are shut down after the test."""
    kernels: list[Kernel] = []

    def start() -> Kernel:
        kernels.append(Kernel(tmp_path))
        kernels[-1].ok("%load_ext nbserve")
        return kernels[-1]

    yield start
    for kernel in kernels:
        kernel.close()


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory, jupyter_dirs: Path) -> Iterator[Kernel]:
    """One kernel with the extension loaded for the tests of a file that leave it as they found it."""
    kernel = Kernel(tmp_path_factory.mktemp("kernel"))
    kernel.ok("%load_ext nbserve")
    yield kernel
    kernel.close()

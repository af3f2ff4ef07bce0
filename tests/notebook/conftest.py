"""Shells and kernels for the tests of the notebook face, with Jupyter's folders in a temporary place."""

from __future__ import annotations

import atexit
import os
import queue
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from jupyter_client.manager import KernelManager

ANSI = re.compile("\x1b\\[[0-9;]*m")
CELL_LIMIT_S = 120
POLL_S = 0.02
# What a front end sends for Ctrl-D.
END_OF_INPUT = "\x04"

Reply = str | Callable[[], str | None]


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
    """What one cell did: its displays (as they stand now), printed text, prompts, value, error, and its number."""

    status: str = ""
    displays: list[dict[str, Any]] = field(default_factory=list)
    printed: str = ""
    prompts: list[str] = field(default_factory=list)
    value: str | None = None
    error: str = ""
    error_name: str = ""
    number: int = 0

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
        elif kind == "execute_result":
            self.value = content["data"]["text/plain"]
        elif kind == "error":
            self.error_name = content["ename"]
            self.error = ANSI.sub("", "\n".join(content["traceback"]))


class Widget:
    """What a front end knows of a widget: the state that the kernel told, and its own messages."""

    def __init__(self, kernel: Kernel, comm_id: str, opened: dict[str, Any]) -> None:
        self._kernel = kernel
        self._comm_id = comm_id
        self.state: dict[str, Any] = opened["content"]["data"]["state"]
        self.messages: list[dict[str, Any]] = []
        self.buffers: dict[int, list[bytes]] = {}
        self.is_closed = False

    def take(self, message: dict[str, Any]) -> None:
        if message["msg_type"] == "comm_close":
            self.is_closed = True
            return
        data = message["content"]["data"]
        if data["method"] in ("update", "echo_update"):
            self.state.update(data["state"])
        elif data["method"] == "custom":
            self.buffers[len(self.messages)] = [bytes(buffer) for buffer in message["buffers"]]
            self.messages.append(data["content"])

    def send(self, content: dict[str, Any]) -> None:
        self._kernel.send_comm("comm_msg", self._comm_id, {"method": "custom", "content": content})

    def set(self, **state: Any) -> None:
        """What moving a slider does."""
        self._kernel.send_comm("comm_msg", self._comm_id, {"method": "update", "state": state, "buffer_paths": []})

    def close(self) -> None:
        self._kernel.send_comm("comm_close", self._comm_id, {})


class Kernel:
    """A real kernel, driven as a notebook front end does."""

    def __init__(self, folder: Path, environ: Mapping[str, str] | None = None) -> None:
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(folder), env={**os.environ, **(environ or {})})
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self._outcomes: dict[str, Outcome] = {}
        self.widgets: dict[str, Widget] = {}

    @property
    def pid(self) -> int:
        return int(self.manager.provisioner.process.pid)

    def interrupt(self) -> None:
        """What the stop button does, from any thread."""
        os.kill(self.pid, signal.SIGINT)

    def run(
        self,
        code: str,
        on_output: Callable[[Outcome], None] | None = None,
        replies: Sequence[Reply] | None = None,
    ) -> Outcome:
        """Run a cell to its end; `on_output` is called after each output, with what there is so far.

        With `replies` the cell can ask for input: each prompt takes the next one, a text or a function that does
        something and gives one or None. Prompts past the last get the end of input, as Ctrl-D does.
        """
        message_id = self.client.execute(code, allow_stdin=replies is not None)
        outcome = self._outcomes[message_id] = Outcome()
        waiting = iter(replies or ())
        deadline = time.monotonic() + CELL_LIMIT_S
        while not self._is_idle(message_id, outcome, on_output):
            assert time.monotonic() < deadline, f"the cell did not end:\n{outcome.text}"
            if self._asks_for_input(outcome):
                self._reply(next(waiting, END_OF_INPUT))
        reply = self._reply_to(message_id)["content"]
        outcome.status, outcome.number = reply["status"], reply["execution_count"]
        return outcome

    def follow(self, condition: Callable[[], bool], within_s: float = 10) -> bool:
        """Take what the kernel shows between cells, until the condition holds."""
        deadline = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            self._is_idle("", None, None)
        return True

    def _is_idle(self, message_id: str, outcome: Outcome | None, on_output: Callable[[Outcome], None] | None) -> bool:
        """Take the outputs that came, for a moment; whether the cell has ended."""
        try:
            message = self.client.get_iopub_msg(timeout=POLL_S)
        except queue.Empty:
            return False
        parent = message["parent_header"].get("msg_id", "")
        if message["msg_type"] == "update_display_data":
            self._update(message["content"])
        elif message["msg_type"].startswith("comm_"):
            self._take_comm(message)
        elif parent in self._outcomes:
            self._outcomes[parent].take(message)
        if parent != message_id or outcome is None:
            return False
        if on_output is not None:
            on_output(outcome)
        return bool(message["msg_type"] == "status" and message["content"]["execution_state"] == "idle")

    def _take_comm(self, message: dict[str, Any]) -> None:
        comm_id = message["content"]["comm_id"]
        if message["msg_type"] == "comm_open":
            self.widgets[comm_id] = Widget(self, comm_id, message)
        else:
            self.widgets[comm_id].take(message)

    def send_comm(self, kind: str, comm_id: str, data: dict[str, Any]) -> None:
        self.client.shell_channel.send(self.client.session.msg(kind, {"comm_id": comm_id, "data": data}))

    def _update(self, content: dict[str, Any]) -> None:
        known = content["transient"]["display_id"]
        for outcome in self._outcomes.values():
            for display in outcome.displays:
                if display["transient"].get("display_id") == known:
                    display["data"] = content["data"]

    def _asks_for_input(self, outcome: Outcome) -> bool:
        try:
            request = self.client.get_stdin_msg(timeout=0)
        except queue.Empty:
            return False
        outcome.prompts.append(request["content"]["prompt"])
        return True

    def _reply(self, reply: Reply) -> None:
        text = reply if isinstance(reply, str) else reply()
        if text is not None:
            self.client.input(text)

    def _reply_to(self, message_id: str) -> dict[str, Any]:
        while True:
            reply: dict[str, Any] = self.client.get_shell_msg(timeout=CELL_LIMIT_S)
            if reply["parent_header"].get("msg_id") == message_id:
                return reply

    def ok(self, code: str, replies: Sequence[Reply] | None = None) -> Outcome:
        outcome = self.run(code, replies=replies)
        assert outcome.status == "ok", outcome.text
        return outcome

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


def older_ipykernel() -> Path:
    """The folder with an ipykernel of before the subshells, which `make test` installs beside the other."""
    folder = Path(__file__).resolve().parents[2] / ".venvs" / "ipykernel-6"
    assert folder.is_dir(), f"{folder} is missing: make installs it"
    return folder


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

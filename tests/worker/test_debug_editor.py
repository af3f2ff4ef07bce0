"""An editor in a worker: what VS Code would do over debugpy's port, done here by a small client of its protocol."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from nbserve.errors import DebugError
from nbserve.worker.debug.editor import Editor
from tests.dap import Dap, places

pytestmark = pytest.mark.process

SOURCE = """
# %% notes.ipynb, cell 1, line 2
def helper(x):
    y = x + 1
    return y
# %% notes.ipynb, cell 3, line 1
import nbserve.handler as nbserve
# %% notes.ipynb, cell 3, line 4
class Served(nbserve.Handler):
    def handle(self, requests, context):
        if requests[0] == "break":
            breakpoint()
            return [7]
        total = sum(helper(x) for x in requests)
        return [total] * len(requests)
"""


@pytest.fixture
def folder(bundle: Callable[..., Path]) -> Path:
    return bundle(SOURCE)


@pytest.fixture
def worker(nursery: Any, folder: Path, agent_of: Any) -> Any:
    return nursery.start_ready(folder, debug_socket=agent_of.path)


@pytest.fixture
def client(worker: Any, agent_of: Any) -> Any:
    return agent_of.client()


@pytest.fixture
def dap(client: Any) -> Iterator[Dap]:
    client.say("debugpy", port=0)
    editor = Dap(client.event("listening")["port"])
    yield editor
    editor.close()


@pytest.fixture
def cells(dap: Dap, folder: Path, agent_of: Any) -> dict[int, Path]:
    """They lie beside the agent's socket, in the user's own folder that ends with the server."""
    beside = Path(agent_of.path).parent
    return {number: beside / f"{folder.name}, notes.ipynb, cell {number}.py" for number in (1, 3)}


def test_breakpoints_in_cells_stop_an_editor_there(worker: Any, dap: Dap, client: Any, cells: dict[int, Path]) -> None:
    came = worker.hear("debugger")
    assert (came["who"], came["kind"]) == ("a test", "debugpy")
    assert cells[1].read_text() == "\ndef helper(x):\n    y = x + 1\n    return y\n"
    assert cells[3].read_text().splitlines()[3] == "class Served(nbserve.Handler):"
    assert dap.attach({cells[1]: [3], cells[3]: [10]}) == [True, True]
    worker.send(b"20")
    thread, frames = dap.stop()
    held = worker.hear("held")
    assert (held["reason"], held["file"], held["line"], held["wait_s"]) == ("stop", "notes.ipynb, cell 1", 3, None)
    # Here and to its end: the frames of the worker itself are not shown.
    assert places(frames)[0] == ("helper", 3, str(cells[1]))
    assert places(frames)[-1] == ("Served.handle" if sys.version_info >= (3, 14) else "handle", 9, str(cells[3]))
    assert frames[0]["source"]["sourceReference"] == 0
    assert dap.ask("evaluate", expression="x * 2", frameId=frames[0]["id"])["result"] == "40"
    dap.ask("next", threadId=thread)
    thread, frames = dap.stop()
    assert places(frames)[0] == ("helper", 4, str(cells[1]))
    assert client.event("held")["line"] == 3
    dap.ask("continue", threadId=thread)
    assert client.event("resumed")
    thread, frames = dap.stop()
    assert places(frames)[0][1:] == (10, str(cells[3]))
    worker.hear("held")
    dap.ask("continue", threadId=thread)
    assert worker.answer() == (200, 21)
    worker.hear("resumed")


def test_an_editor_that_disconnects_leaves_a_spent_worker(worker: Any, dap: Dap, client: Any, cells: Any) -> None:
    dap.attach({cells[1]: [3]})
    worker.send(b"1")
    dap.stop()
    worker.hear("held")
    dap.ask("disconnect", terminateDebuggee=False)
    assert worker.answer() == (200, 2)
    assert client.event("ended")["text"].startswith("the editor has left")
    assert worker.hear("spent") == {"event": "spent", "text": "debugpy has traced it"}
    worker.hear("resumed")
    worker.send(b"2")
    assert worker.answer() == (200, 3)


def test_an_editor_that_is_killed_lets_the_request_go_on(worker: Any, dap: Dap, client: Any, cells: Any) -> None:
    dap.attach({cells[1]: [3]})
    worker.send(b"1")
    dap.stop()
    worker.hear("held")
    dap.close()
    assert worker.answer() == (200, 2)
    assert client.event("ended")


def test_a_session_that_ends_takes_the_editor_along(worker: Any, dap: Dap, client: Any, cells: Any) -> None:
    dap.attach({cells[1]: [3]})
    worker.send(b"1")
    dap.stop()
    worker.hear("held")
    client.close()
    assert worker.answer() == (200, 2)
    worker.hear("spent")
    worker.hear("resumed")


def test_breakpoint_stops_the_editor(worker: Any, dap: Dap, cells: dict[int, Path]) -> None:
    dap.attach({})
    worker.send(b'"break"')
    thread, frames = dap.stop()
    worker.hear("held")
    assert places(frames)[0][1:] in [(7, str(cells[3])), (8, str(cells[3]))]
    dap.ask("continue", threadId=thread)
    assert worker.answer() == (200, 7)


def test_an_editor_finds_the_worker_that_a_breakpoint_holds(worker: Any, dap: Dap, cells: dict[int, Path]) -> None:
    worker.send(b'"break"')
    assert worker.hear("held")["reason"] == "breakpoint"
    dap.attach({})
    thread, frames = dap.stop()
    assert places(frames)[0][2] == str(cells[3])
    dap.ask("continue", threadId=thread)
    worker.hear("resumed")
    assert worker.answer() == (200, 7)


def test_debugpy_needs_no_other_process_and_listens_on_loopback_alone(worker: Any, dap: Dap, client: Any) -> None:
    process = psutil.Process(worker.pid)
    assert process.children(recursive=True) == []
    marker = os.environ["NBSERVE_RUNTIME_DIR"]
    adapters = [each for each in psutil.process_iter() if "debugpy" in " ".join(_command(each, marker))]
    assert adapters == []
    listening = [each.laddr for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    assert [address.ip for address in listening] == ["127.0.0.1"]
    assert worker.log() == ""


def _command(process: psutil.Process, marker: str) -> list[str]:
    try:
        return process.cmdline() if process.environ().get("NBSERVE_RUNTIME_DIR") == marker else []
    except psutil.Error:
        return []


def test_a_port_that_is_taken_is_refused(worker: Any, client: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        client.say("debugpy", port=taken.getsockname()[1])
        assert "cannot be used" in client.event("refused")["text"]
    worker.send(b"1")
    assert worker.answer() == (200, 2)


def test_debugpy_is_not_loaded_before_it_is_asked_for(worker: Any) -> None:
    maps = Path(f"/proc/{worker.pid}/maps")
    if not maps.exists():
        pytest.skip("this system does not tell what a process has loaded")
    assert "pydevd" not in maps.read_text()


def test_without_debugpy_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setitem(sys.modules, "debugpy", None)
    with pytest.raises(DebugError, match=r"pip install 'nbserve-torch\[debugpy\]'"):
        Editor(0, folder, folder, None).listen()  # type: ignore[arg-type]

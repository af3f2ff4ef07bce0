"""`--port`: an editor debugs one worker of an endpoint, others serve, and the worker is replaced afterwards."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbserve.debugging import DebugOptions, debug
from nbserve.verbs import Endpoint
from tests.dap import Dap, places

pytestmark = pytest.mark.process

CELL = """
class H(nbserve.Handler):
    def preprocess(self, requests):
        total = sum(requests)
        return [total] * len(requests)

    def inference(self, batch):
        return batch
"""


class Heard:
    """A console that keeps what it is told."""

    def __init__(self) -> None:
        self.text = ""
        self._more = threading.Condition()

    def write(self, text: str) -> None:
        with self._more:
            self.text += text
            self._more.notify_all()

    def note(self, text: str) -> None:
        self.write(f"{text}\n")

    def read_line(self, prompt: str) -> str:
        raise EOFError

    def wait_for(self, pattern: str) -> str:
        """The pattern's group in what was told, as soon as it is there."""
        with self._more:
            assert self._more.wait_for(lambda: re.search(pattern, self.text), 30), self.text
            found = re.search(pattern, self.text)
        assert found is not None
        return found[1]


def test_an_editor_stops_one_worker_while_others_serve(
    serve_cell: Callable[..., Endpoint], client: Any, wait_until: Callable[..., None]
) -> None:
    endpoint = serve_cell(CELL, workers=1)
    pid = endpoint.stats()["workers"][0]["pid"]
    heard = Heard()
    session = threading.Thread(target=debug, args=[endpoint, DebugOptions(port=0), heard])
    session.start()
    editor = Dap(int(heard.wait_for(r"127\.0\.0\.1:(\d+)")))
    cell = Path(heard.wait_for(r"test\.ipynb, cell 1 is there: (.+\.py)"))
    line = cell.read_text().splitlines().index("        total = sum(requests)") + 1
    assert editor.attach({cell: [line]}) == [True]
    stopped = client(endpoint, 3)
    thread, frames = editor.stop()
    assert places(frames) == [("preprocess", line, str(cell))]
    wait_until(lambda: endpoint.stats()["workers"][0]["held"])
    assert endpoint.predict(5) == 5
    editor.ask("setBreakpoints", source={"path": str(cell)}, breakpoints=[])
    editor.ask("continue", threadId=thread)
    assert stopped.answer() == 3
    editor.ask("disconnect")
    editor.close()
    session.join(30)
    assert not session.is_alive()
    wait_until(lambda: [worker["pid"] for worker in endpoint.stats()["workers"] if worker["pid"] != pid])
    assert endpoint.predict(4) == 4

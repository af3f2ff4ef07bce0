"""In a real kernel: `%%serve` to the first answer, and a re-run cell to the first answer of its new code."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.steady import SteadyLoad
from benchmarks.workloads import JSON, examples

LOAD_PER_S = 200.0
AROUND_S = 1.0
CELL_S = 120.0

LOAD_CELL = "%load_ext nbserve"
MODEL_CELL = """
import sys
sys.path.insert(0, {folder!r})
import torch
import nbserve
import workloads
net = workloads.Mlp(1).model
row = [0.5] * 256
"""
SERVE_CELL = """%%serve bench
class Bench(nbserve.Handler):
    edition = {edition}

    def initialize(self, context):
        self.model = net

    def postprocess(self, outputs):
        return [self.edition] * len(outputs)
"""
ASK_CELL = "print(nbserve.endpoint('bench').predict(row))"
URL_CELL = "print(nbserve.endpoint('bench').url)"


def measure() -> dict[str, Any]:
    """Seconds as a user sees them, from running the cell; the model was made in the notebook and is captured."""
    with _kernel() as kernel:
        kernel.run(LOAD_CELL)
        kernel.run(MODEL_CELL.format(folder=str(Path(__file__).resolve().parent)))
        time.sleep(AROUND_S)
        began_s = time.perf_counter()
        kernel.run(SERVE_CELL.format(edition=1))
        _expect("1", kernel.run(ASK_CELL))
        first_answer_s = time.perf_counter() - began_s
        return {"first_answer_s": first_answer_s, **_rerun(kernel, kernel.run(URL_CELL))}


def _rerun(kernel: _Kernel, url: str) -> dict[str, Any]:
    where = urlsplit(url)
    with SteadyLoad(where.port or 80, where.path, examples("mlp", 1)[0], JSON, LOAD_PER_S) as load:
        time.sleep(AROUND_S)
        began_s = time.perf_counter()
        kernel.run(SERVE_CELL.format(edition=2))
        time.sleep(AROUND_S)
    answers = load.answers
    return {
        "rerun_s": answers.first_after(began_s, b"2"),
        "failed": len(answers.failed),
        "answered": len(answers.answered),
        "failures": answers.failed[:3],
    }


class _Kernel:
    def __init__(self, client: Any) -> None:
        self._client = client

    def run(self, code: str) -> str:
        """Runs a cell and gives what it printed; raises RuntimeError when the cell failed."""
        printed: list[str] = []

        def hear(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
                printed.append(message["content"]["text"])

        reply = self._client.execute_interactive(code, timeout=CELL_S, output_hook=hear, stop_on_error=True)
        if reply["content"]["status"] != "ok":
            raise RuntimeError(f"a cell failed: {reply['content'].get('evalue')}")
        return "".join(printed).strip()


@contextmanager
def _kernel() -> Iterator[_Kernel]:
    try:
        from jupyter_client.manager import KernelManager
    except ImportError as error:
        raise RuntimeError(f"no kernel can be started: {error}") from None
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=CELL_S)
        yield _Kernel(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel()


def _expect(wanted: str, got: str) -> None:
    if got != wanted:
        raise RuntimeError(f"the endpoint answered {got!r}, not {wanted!r}")

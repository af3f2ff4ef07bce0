"""How long until a server answers: from cold, and after an edit. The model is the MLP."""

from __future__ import annotations

import os
import time
from typing import Any
from urllib.parse import urlsplit

from benchmarks import bundles
from benchmarks.kinds import Kind
from benchmarks.steady import SteadyLoad
from benchmarks.workloads import JSON, examples

WORKLOAD = "mlp"
LOAD_PER_S = 200.0
BEFORE_S = 1.0
SWAP_LIMIT_S = 30.0
AFTER_S = 1.0


def cold_s(kind: Kind, threads: int) -> float:
    """Seconds from starting the server's command to its first answer."""
    settings = kind.settings(WORKLOAD, 1, threads)
    kind.command(kind.python(), settings)  # nbserve's bundle is written here, before the clock runs
    with kind.launch(settings) as server:
        return kind.wait(server, settings)


def restart_s(kind: Kind, threads: int) -> float:
    """Seconds from the edit to the first answer of the new code, for a server that has to be restarted for it."""
    settings = kind.settings(WORKLOAD, 1, threads)
    with kind.launch(settings) as server:
        kind.wait(server, settings)
        edited_s = time.perf_counter()
    with kind.launch(settings) as server:
        kind.wait(server, settings)
        return time.perf_counter() - edited_s


def redeploy(threads: int) -> dict[str, Any]:
    """nbserve: a new bundle over a running one, at 200 requests/s. Seconds from deploying to the first new answer."""
    from nbserve.deployment import Server

    old, new = bundles.write(WORKLOAD, 1), bundles.write(WORKLOAD, 2)
    server = Server.start(owner_pid=os.getpid())
    try:
        server.ready()
        endpoint = server.deploy(old, {"threads_per_worker": threads})
        where = urlsplit(endpoint.url)
        with SteadyLoad(where.port or 80, where.path, examples(WORKLOAD, 1)[0], JSON, LOAD_PER_S) as load:
            time.sleep(BEFORE_S)
            edited_s = time.perf_counter()
            server.deploy(new, {"threads_per_worker": threads})
            _wait_for(load, edited_s, b"2")
            time.sleep(AFTER_S)
    finally:
        server.stop()
    answers = load.answers
    return {
        "seconds": answers.first_after(edited_s, b"2"),
        "failed": len(answers.failed),
        "answered": len(answers.answered),
        "failures": answers.failed[:3],
    }


def _wait_for(load: SteadyLoad, edited_s: float, answer: bytes) -> None:
    deadline_s = edited_s + SWAP_LIMIT_S
    while load.answers.first_after(edited_s, answer) is None and time.perf_counter() < deadline_s:
        time.sleep(0.01)

"""Memory as PSS: shared pages count in parts, so a sum over processes is what they really take."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import psutil

from benchmarks import bundles
from benchmarks.kinds import KINDS, Kind
from benchmarks.processes import post
from benchmarks.servers.settings import Settings, free_port
from benchmarks.workloads import JSON, WORKLOADS, examples

SETTLE_S = 0.5
ANSWERS = 200


def pss_mb(processes: Iterable[psutil.Process]) -> float:
    """Megabytes (10**6) of these processes together."""
    total_bytes = 0
    for process in processes:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
            total_bytes += next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total_bytes / 1e6


def of_server(kind: Kind, workload: str = "mlp", threads: int = 1) -> dict[str, float]:
    """PSS and process count of a server with one worker that has answered a few hundred requests."""
    settings = kind.settings(workload, 1, threads)
    with kind.launch(settings) as server:
        kind.wait(server, settings)
        _answer(settings.port, kind.path, examples(workload, 1)[0], WORKLOADS[workload].content_type)
        processes = server.processes()
        return {"pss_mb": pss_mb(processes), "processes": len(processes)}


def of_shared_weights(workers: int) -> float:
    """PSS of nbserve serving the 1 GiB model with that many workers, all of which have answered."""
    kind = KINDS["nbserve"]
    settings = Settings("weights", free_port(), workers, threads=1, max_batch_size=8, window_ms=0)
    body = orjson.dumps([0.5] * bundles.WEIGHTS_WIDTH)
    with kind.launch(settings) as server:
        server.wait_until_answers(settings.port, kind.path, body, JSON, 120.0)
        _answer(settings.port, kind.path, body, JSON)
        return pss_mb(server.processes())


def of_idle_server() -> dict[str, float]:
    """PSS of nbserve without an endpoint: the server process, and the nursery that holds torch."""
    from nbserve.deployment import Server

    server = Server.start(owner_pid=os.getpid())
    try:
        process = psutil.Process(server.ready().info()["pid"])
        _settle([process, *process.children(recursive=True)])
        return {"server_mb": pss_mb([process]), "nursery_mb": pss_mb(process.children(recursive=True))}
    finally:
        server.stop()


def _answer(port: int, path: str, body: bytes, content_type: str) -> None:
    with ThreadPoolExecutor(16) as senders:
        for status, _ in senders.map(lambda _: post(port, path, body, content_type), range(ANSWERS)):
            if status != 200:
                raise RuntimeError(f"status {status} while memory was measured")


def _settle(processes: list[psutil.Process], limit_s: float = 20.0) -> None:
    """Waits until the nursery has imported torch: until the processes use no CPU for a while."""
    deadline_s, before = time.monotonic() + limit_s, -1.0
    while time.monotonic() < deadline_s:
        used = sum(sum(process.cpu_times()[:2]) for process in processes)
        if used == before:
            return
        before = used
        time.sleep(SETTLE_S)

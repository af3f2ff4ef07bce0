"""What a server tells about itself: the objects of `nbserve ps --json`, built from its live state. Server process."""

from __future__ import annotations

import time
from typing import Any, TypedDict

from nbserve.runfile import RunFile
from nbserve.server.endpoint import Endpoint
from nbserve.server.holds import HeldObject, Role
from nbserve.server.machine import Machine
from nbserve.server.trials import Trial
from nbserve.server.worker import Worker


class WorkerStatus(TypedDict):
    index: int
    pid: int | None
    state: str
    device: str
    threads: int
    rss_bytes: int
    cpu_percent: float
    batches: int
    restarts: int
    last_error: str | None
    last_error_place: str | None
    role: Role
    held: HeldObject | None
    debugger: str | None
    profiling: bool


class TrialStatus(TypedDict):
    version: str
    bundle: str
    settings: dict[str, Any]
    queued: int
    workers: list[WorkerStatus]


class EndpointStatus(TypedDict):
    server_id: str
    name: str
    version: str | None
    state: str
    url: str | None
    bundle: str | None
    settings: dict[str, Any]
    queued: int
    workers: list[WorkerStatus]
    trials: list[TrialStatus]
    requests: dict[str, int]


class ServerStatus(TypedDict):
    server_id: str
    pid: int
    nursery_pid: int
    url: str | None
    management_url: str
    run_file: str
    owner_pid: int | None
    detached: bool
    notebook: str | None
    debug: bool
    cores: int
    gpus: int
    endpoints: list[EndpointStatus]


def server_status(
    run_file: RunFile, nursery_pid: int, can_debug: bool, machine: Machine, endpoints: list[Endpoint]
) -> ServerStatus:
    return ServerStatus(
        server_id=run_file.server_id,
        pid=run_file.pid,
        nursery_pid=nursery_pid,
        url=run_file.url,
        management_url=run_file.management_url,
        run_file=str(run_file.path),
        owner_pid=run_file.owner_pid,
        detached=run_file.detached,
        notebook=run_file.notebook,
        debug=can_debug,
        cores=machine.cores,
        gpus=machine.gpus,
        endpoints=[endpoint_status(endpoint, run_file) for endpoint in endpoints],
    )


def endpoint_status(endpoint: Endpoint, run_file: RunFile) -> EndpointStatus:
    current, server_url = endpoint.current, run_file.url
    return EndpointStatus(
        server_id=run_file.server_id,
        name=endpoint.name,
        version=endpoint.version,
        state=endpoint.state,
        url=f"{server_url}/predictions/{endpoint.name}" if server_url else None,
        bundle=str(current.bundle.path) if current else None,
        settings=current.config.as_dict() if current else {},
        queued=endpoint.queued,
        workers=[_worker(worker) for worker in endpoint.workers],
        trials=[trial_status(trial) for trial in endpoint.trials.all()],
        requests={str(status): count for status, count in sorted(endpoint.metrics.requests().items())},
    )


def trial_status(trial: Trial) -> TrialStatus:
    version = trial.version
    return TrialStatus(
        version=trial.name,
        bundle=str(version.bundle.path),
        settings=version.config.as_dict(),
        queued=version.batcher.waiting,
        workers=[_worker(worker) for worker in version.crew.everyone],
    )


def _worker(worker: Worker) -> WorkerStatus:
    return WorkerStatus(
        index=worker.index,
        pid=worker.pid,
        state=worker.state.value,
        device=worker.device,
        threads=worker.threads,
        rss_bytes=worker.rss_bytes,
        cpu_percent=worker.cpu_percent,
        batches=worker.batches,
        restarts=worker.restarts,
        last_error=worker.last_error,
        last_error_place=worker.last_error_place,
        role=worker.role,
        held=worker.held_object(time.time()),
        debugger=worker.debugger.who if worker.debugger else None,
        profiling=worker.recording is not None,
    )

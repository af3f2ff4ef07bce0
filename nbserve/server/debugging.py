"""What debuggers ask of an endpoint: a worker, a stand-in for it, a replay, a request of their own. Server process."""

from __future__ import annotations

import asyncio
import time
from typing import TypedDict

from nbserve.errors import DebugError, NotFound, StartError, Unavailable
from nbserve.server.endpoint import Endpoint
from nbserve.server.failures import Failure, FailureObject
from nbserve.server.holds import HeldObject
from nbserve.server.own_request import OwnRequest, Reply, make_meta, with_token
from nbserve.server.standins import Mode
from nbserve.server.targets import pick
from nbserve.server.version import Version
from nbserve.server.worker import Worker

STACK_LIMIT_S = 2.0
STACK_QUIET_S = 0.2


class DebugAnswer(TypedDict):
    """Where a debugger finds its worker; all but `standin` is None when nothing is held yet."""

    worker: int | None
    pid: int | None
    socket: str | None
    held: HeldObject | None
    standin: bool
    failure: FailureObject | None


def holds_of(endpoint: Endpoint) -> list[HeldObject]:
    """The held workers of all versions, those of one that starts included; longest held first."""
    now_s = time.time()
    held = [found for _, worker in _workers(endpoint) if (found := worker.held_object(now_s)) is not None]
    return sorted(held, key=lambda found: found["since_s"])


async def debug(endpoint: Endpoint, mode: Mode, index: int | None) -> DebugAnswer:
    """Have a worker ready for a debugger that is about to connect to its agent."""
    if mode == "replay":
        version = endpoint.serving()
        failure = _newest_failure(endpoint)
        try:
            worker = await version.crew.start_replay(failure)
        except StartError as error:
            raise StartError(f"no worker for the replay could be started: {error}", error.traceback_text) from None
        version.crew.answered(worker)
        return _answer(worker, failure=failure)
    if mode in ("stop", "debugpy"):
        return await _prepare_stop(endpoint.serving(), mode, index)
    if mode == "post_mortem" and index is None:
        _check_post_mortem(endpoint)
    chosen = pick(mode, [worker for _, worker in _workers(endpoint)], endpoint.name, index)
    return _answer(chosen)


async def _prepare_stop(version: Version, mode: Mode, index: int | None) -> DebugAnswer:
    """Others serve while requests stop in the chosen worker."""
    crew = version.crew
    worker = pick(mode, crew.everyone, version.name, index)
    assert worker is not None
    crew.wish(worker, mode)
    try:
        has_standin = await crew.has_standin()
    finally:
        crew.answered(worker)
    return _answer(worker, has_standin)


async def send(
    endpoint: Endpoint, index: int, body: bytes, content_type: str, token: str | None, *, is_replay: bool = False
) -> Reply:
    """Send a request to that worker, or the failed one again, and wait for the answer."""
    version, worker = find_worker(endpoint, index)
    if is_replay:
        failure = version.crew.replayed if worker.role == "replay" else None
        failure = failure or _newest_failure(endpoint)
        request = OwnRequest(with_token(failure.meta, token), failure.body, is_direct=True, is_replay=True)
    else:
        request = OwnRequest(make_meta(content_type, token), body, is_direct=True)
    version.submit_to(worker, request)
    return await request.reply


async def stack(endpoint: Endpoint, index: int) -> str:
    """The stacks of a worker's threads, as its process writes them on SIGUSR1, whatever it is doing."""
    version, worker = find_worker(endpoint, index)
    lines: list[str] = []
    keep = lines.append
    worker.on_line.append(keep)
    try:
        version.dump_stack(worker)
        await _until_quiet(lines)
    finally:
        worker.on_line.remove(keep)
    return "\n".join(line for line in lines if line.startswith(("Thread 0x", "Current thread 0x", "  ")))


async def _until_quiet(lines: list[str]) -> None:
    deadline_s = time.monotonic() + STACK_LIMIT_S
    seen = -1
    while time.monotonic() < deadline_s and (not lines or len(lines) != seen):
        seen = len(lines)
        await asyncio.sleep(STACK_QUIET_S)


def find_worker(endpoint: Endpoint, index: int) -> tuple[Version, Worker]:
    """The live worker of that index, in the version that serves first; raises NotFound or Unavailable."""
    for version, worker in _workers(endpoint):
        if worker.index == index:
            if worker.pid is None or worker.ended.is_set():
                raise Unavailable(f"worker {index} of {endpoint.name} is not running now")
            return version, worker
    raise NotFound(f"{endpoint.name} has no worker {index}")


def _workers(endpoint: Endpoint) -> list[tuple[Version, Worker]]:
    return [(version, worker) for version in endpoint.versions for worker in version.crew.everyone]


def _newest_failure(endpoint: Endpoint) -> Failure:
    if (failure := endpoint.failures.newest) is None:
        raise DebugError(f"no request of {endpoint.name} has failed since the server started")
    return failure


def _check_post_mortem(endpoint: Endpoint) -> None:
    """The exception lives in the process that raised it."""
    failure = endpoint.failures.newest
    if failure is None:
        raise DebugError(f"no request of {endpoint.name} has failed")
    if not any(worker.failed_ns and not worker.ended.is_set() for _, worker in _workers(endpoint)):
        raise DebugError(
            f"worker {failure.worker} (pid {failure.pid}), where request {failure.request_id} of {endpoint.name} "
            "failed, has ended: run that request again with --replay"
        )


def _answer(worker: Worker | None, has_standin: bool = False, failure: Failure | None = None) -> DebugAnswer:
    return DebugAnswer(
        worker=worker.index if worker else None,
        pid=worker.pid if worker else None,
        socket=worker.debug_socket if worker else None,
        held=worker.held_object(time.time()) if worker else None,
        standin=has_standin,
        failure=failure.as_object() if failure else None,
    )

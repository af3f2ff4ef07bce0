"""Which workers record when somebody asks, and where to: the recordings of a server. Server process."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbserve.errors import BadRequest, ConfigError, Conflict, NotFound, Unavailable
from nbserve.server.recording import Order, Recording
from nbserve.server.version import Version
from nbserve.server.worker import Worker

ENVIRONMENT = "NBSERVE_PROFILE"
DEFAULT_BATCHES = 50
DEFAULT_S = 10.0
# Long enough for a client to read its files; what it leaves behind then is removed.
KEPT_S = 600.0


@dataclass(frozen=True)
class Wish:
    """What a client asks for. It ends after `batches` or `seconds`, whichever is first; `worker` None is the first.

    `is_startup` asks for what the workers recorded when they started, instead of a new recording.
    """

    batches: int | None = None
    seconds: float | None = None
    worker: int | None = None
    all_workers: bool = False
    stacks: bool = False
    memory: bool = False
    shapes: bool = True
    is_startup: bool = False

    @classmethod
    def of_json(cls, message: Mapping[str, Any]) -> Wish:
        """Raises BadRequest for what is none."""
        batches = _number(message, "batches", int, 1)
        seconds = _number(message, "seconds", (int, float), 0.001)
        if batches is None and seconds is None:
            batches, seconds = DEFAULT_BATCHES, DEFAULT_S
        return cls(
            batches=batches,
            seconds=seconds,
            worker=_number(message, "worker", int, 0),
            all_workers=_flag(message, "all", False),
            stacks=_flag(message, "stacks", False),
            memory=_flag(message, "memory", False),
            shapes=_flag(message, "shapes", True),
            is_startup=_flag(message, "startup", False),
        )

    @property
    def order(self) -> Order:
        return Order(self.batches, self.stacks, self.memory, self.shapes)


def _number(message: Mapping[str, Any], name: str, kinds: Any, least: float) -> Any:
    value = message.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value < float("inf"):
        what = "a whole number" if kinds is int else "a number"
        raise BadRequest(f"{name} is {value!r}; it takes {what} from {least}, or null")
    return value


def _flag(message: Mapping[str, Any], name: str, default: bool) -> bool:
    value = message.get(name, default)
    if not isinstance(value, bool):
        raise BadRequest(f"{name} is {value!r}; it takes true or false")
    return value


class Recordings:
    """`startup_batches` is for how many batches workers record from their start (None: they do not)."""

    def __init__(self, make_directory: Callable[[], Path], cores: int, startup_batches: int | None = None) -> None:
        self._make_directory = make_directory
        self._cores = cores
        self._startup_batches = startup_batches
        self._all: list[Recording] = []

    async def start(self, version: Version, wish: Wish) -> Recording:
        """Have workers of this version record; raises NotFound, Conflict or Unavailable when they cannot."""
        workers = choose(version, wish)
        while old := [worker.recording.done for worker in workers if worker.recording is not None]:
            # Whoever wanted those has gone, but their workers have not stopped yet.
            await asyncio.wait(old)
            workers = choose(version, wish)
        recording = self._new(secrets.token_hex(4), version, wish.order)
        recording.start(workers)
        return recording

    def startup_order(self, version: Version, worker: Worker) -> dict[str, Any] | None:
        """What a worker that is about to start is to record; each does so once, before its version serves."""
        if self._startup_batches is None or version.is_serving or worker.role != "worker":
            return None
        if version.startup is None:
            version.startup = self._new("startup", version, Order(self._startup_batches))
        if any(part.worker is worker for part in version.startup.parts):
            return None
        return version.startup.add(worker)

    def close(self) -> None:
        """The server stops: nobody reads any files any more."""
        for recording in self._all:
            recording.give_up("the server stopped while it recorded")

    def _new(self, number: str, version: Version, order: Order) -> Recording:
        self._sweep()
        name = number if number != "startup" else f"startup-{secrets.token_hex(4)}"
        directory = self._make_directory() / "profiles" / name
        directory.parent.mkdir(mode=0o700, exist_ok=True)
        directory.mkdir(mode=0o700)
        self._all.append(Recording(number, version, order, directory, self._cores))
        return self._all[-1]

    def _sweep(self) -> None:
        """Remove what clients left behind, and what was recorded of versions that have gone."""
        for recording in list(self._all):
            if _is_over(recording):
                self._all.remove(recording)
                recording.remove()


def _is_over(recording: Recording) -> bool:
    if recording.handed_over_s:
        return time.monotonic() - recording.handed_over_s > KEPT_S
    return recording.is_done and (recording.error is not None or not recording.version.crew.everyone)


def choose(version: Version, wish: Wish) -> list[Worker]:
    """The workers that are to record. Raises NotFound, Conflict when one is held or records, else Unavailable."""
    name = version.name
    if wish.worker is not None:
        chosen = [worker for worker in version.crew.everyone if worker.index == wish.worker]
        if not chosen:
            known = ", ".join(str(worker.index) for worker in version.crew.everyone)
            raise NotFound(f"{name} has no worker {wish.worker}; there are: {known}")
    else:
        chosen = [worker for worker in version.crew.rotation if worker.is_serving or worker.hold is not None]
        if not wish.all_workers:
            chosen = ([worker for worker in chosen if worker.is_serving] or chosen)[:1]
    if not chosen:
        raise Unavailable(f"no worker of {name} serves now")
    for worker in chosen:
        _check(worker, name)
    return chosen


def _check(worker: Worker, name: str) -> None:
    if worker.hold is not None:
        raise Conflict(
            f"worker {worker.index} of {name} is held at {worker.hold}: let it go on, or record another worker"
        )
    if not worker.is_serving:
        raise Unavailable(f"worker {worker.index} of {name} does not serve now: it is {worker.state.value}")
    if worker.recording is not None and worker.recording.is_wanted:
        since = " since it started" if worker.recording.id == "startup" else ""
        raise Conflict(f"worker {worker.index} of {name} records already{since}: wait until it is done")


def startup_of(version: Version) -> Recording:
    """What the workers of this version recorded from their start on; raises NotFound."""
    if version.startup is None:
        raise NotFound(
            f"the workers of {version.name} did not record their start: set {ENVIRONMENT}=1 in the environment of the "
            "server, then deploy the endpoint again"
        )
    if version.startup.handed_over_s:
        raise NotFound("the recording of the start was handed out already; deploy the endpoint again for another")
    return version.startup


def startup_batches() -> int | None:
    """For how many batches workers record from their start, as the environment says; None: they do not."""
    text = os.environ.get(ENVIRONMENT, "").strip().lower()
    if text in ("", "0", "false", "no", "off"):
        return None
    if text in ("1", "true", "yes", "on"):
        return DEFAULT_BATCHES
    if not text.isdecimal():
        raise ConfigError(f"{ENVIRONMENT} is {text!r}; it takes 1, or for how many batches each worker records")
    return int(text)

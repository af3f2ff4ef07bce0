"""One recording of a version: what each of its workers does for it, and the requests meanwhile. Server process."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbserve.errors import NbserveError, NotFound, Unavailable
from nbserve.recording import Span, WorkerRecording
from nbserve.server.worker import Worker

if TYPE_CHECKING:
    from nbserve.server.version import Version

STARTUP_S = 30.0


@dataclass(frozen=True)
class Order:
    """What each worker is to record, and for how many batches; None: until it is told to stop."""

    batches: int | None = None
    stacks: bool = False
    memory: bool = False
    shapes: bool = True


class Part:
    """What one worker does for a recording.

    `begun` is done when it records, or when it never will; `done` when its files are complete, or there will be none.
    One that is not `is_wanted` any more is only waited for until the worker has stopped.
    """

    def __init__(self, recording_id: str, worker: Worker) -> None:
        loop = asyncio.get_running_loop()
        self.id = recording_id
        self.worker = worker
        self.begun: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[WorkerRecording] = loop.create_future()
        self.is_wanted = True
        self._began_ns = time.monotonic_ns()
        self._why_early: str | None = None
        worker.recording = self

    def hear(self, event: dict[str, Any]) -> None:
        """The worker said that it records, or what it has recorded; what it says of other recordings is old."""
        if event["id"] != self.id:
            return
        if event["event"] == "profiling":
            self._began_ns = time.monotonic_ns()
            self._begin()
        elif event["event"] == "profiled":
            recorded: WorkerRecording = event["recording"]
            recorded["error"] = recorded["error"] or self._why_early
            self._finish(recorded)

    def stop(self) -> None:
        if not self.done.done():
            self.worker.channel.send({"op": "profile_stop", "id": self.id})

    def held(self, text: str) -> None:
        """A debugger has the worker, for how long nobody knows: it is told to stop, and not waited for."""
        self.stop()
        self._fail(f"{text} while it recorded")

    def leaving(self) -> None:
        """The worker takes no more batches; what it has recorded is kept."""
        why = self.worker.spent or "its version was replaced, stops, or needs fewer workers"
        self._why_early = f"worker {self.worker.index} was dismissed while it recorded: {why}"
        self.stop()

    def ended(self) -> None:
        """The worker's process is gone."""
        died = f"worker {self.worker.index} ended while it recorded: {self.worker.last_error}"
        self._fail(self._why_early or died)

    def give_up(self) -> None:
        self.is_wanted = False
        self.stop()
        self._begin()

    def _begin(self) -> None:
        if not self.begun.done():
            self.begun.set_result(None)

    def _finish(self, recorded: WorkerRecording) -> None:
        if self.worker.recording is self:
            self.worker.recording = None
        self._begin()
        if not self.done.done():
            self.done.set_result(recorded)

    def _fail(self, text: str) -> None:
        now_ns = time.monotonic_ns()
        self._finish(
            {
                "index": self.worker.index,
                "pid": self.worker.pid or 0,
                "device": self.worker.device,
                "threads": self.worker.threads,
                "batches": [],
                "started_ns": self._began_ns,
                "ended_ns": now_ns,
                "epoch_offset_ns": time.time_ns() - now_ns,
                "trace": None,
                "samples": None,
                "memory": None,
                "facts": {},
                "error": text,
            }
        )


class Recording:
    """What some workers of one version record together, until one of them has as many batches as ordered.

    Its folder is its own until it was `handed_over`.
    """

    def __init__(self, number: str, version: Version, order: Order, directory: Path, cores: int) -> None:
        self.id = number
        self.version = version
        self.order = order
        self.directory = directory
        self.parts: list[Part] = []
        self.handed_over_s = 0.0
        self.error: NbserveError | None = None
        self._settings = version.config.as_dict()
        self._cores = cores
        self._clock: asyncio.TimerHandle | None = None
        self._collector = version.spans.collect(version)

    def start(self, workers: Sequence[Worker]) -> None:
        """Tell these workers to record from now on."""
        for worker in workers:
            worker.channel.send({"op": "profile", **self.add(worker)})
        for part in self.parts:
            part.done.add_done_callback(self._one_is_done)

    def add(self, worker: Worker) -> dict[str, Any]:
        """One more worker; gives what it is to be told, by whatever way."""
        part = Part(self.id, worker)
        self.parts.append(part)
        self._collector.workers.add(worker.index)
        part.done.add_done_callback(self._last_is_done)
        return {"id": self.id, "directory": str(self.directory), "seconds": None, **asdict(self.order)}

    @property
    def batches(self) -> int:
        """How many its workers have answered so far."""
        return self._collector.batches

    @property
    def is_done(self) -> bool:
        return all(part.done.done() for part in self.parts)

    async def begun(self) -> None:
        """Until each worker records, or never will."""
        await asyncio.wait([part.begun for part in self.parts])
        self._check()

    async def is_done_within(self, seconds: float) -> bool:
        await asyncio.wait([part.done for part in self.parts], timeout=seconds)
        self._check()
        return self.is_done

    def stop_in(self, seconds: float) -> None:
        self._clock = asyncio.get_running_loop().call_later(seconds, self.stop)

    def stop(self) -> None:
        """Have all workers stop, each after the batch that it is at."""
        if self._clock is not None:
            self._clock.cancel()
        for part in self.parts:
            part.stop()

    def give_up(self, why: str = "") -> None:
        """Nobody wants it any more, or nobody can have it: then `why` is told to whoever waits."""
        self.error = self.error or Unavailable(why or "the recording was given up")
        for part in self.parts:
            part.give_up()
        self._last_is_done()

    def hand_over(self) -> None:
        """Its files are somebody else's from now on."""
        if self.handed_over_s:
            raise NotFound("this recording was handed out already: there is one for each start of the workers")
        self.handed_over_s = time.monotonic()

    def as_object(self) -> dict[str, Any]:
        """What is told when it is done, without the requests; those are a lot."""
        workers = [part.done.result() for part in self.parts]
        return {
            "endpoint": self.version.name,
            "version": self.version.version,
            "settings": self._settings,
            "cores": self._cores,
            "started_ns": min(worker["started_ns"] for worker in workers),
            "ended_ns": max(worker["ended_ns"] for worker in workers),
            "workers": workers,
        }

    def spans(self) -> Iterator[list[Span]]:
        """The requests that were answered meanwhile, some hundred at a time."""
        whole = self.as_object()
        batch_ids = {number for worker in whole["workers"] for number in worker["batches"]}
        return self._collector.spans(whole["started_ns"], whole["ended_ns"], batch_ids)

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    def _one_is_done(self, done: asyncio.Future[WorkerRecording]) -> None:
        # Where requests are few one worker gets them all: the others would wait for their share for ever.
        batches = done.result()["batches"]
        if done.result()["error"] is None or len(batches) >= (self.order.batches or float("inf")):
            self.stop()

    def _last_is_done(self, _: object = None) -> None:
        if not self.is_done:
            return
        if self._clock is not None:
            self._clock.cancel()
        self.version.spans.stop_collecting(self._collector)
        if self.error is not None:
            self.remove()

    def remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

"""One recording of one worker: what it consists of, when it is over, what it leaves. Runs in the worker."""

from __future__ import annotations

import os
import time
import types
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import torch
from torch.autograd.profiler import record_function

from nbserve import wire
from nbserve.recording import WorkerRecording
from nbserve.worker.profile.allocations import Allocations
from nbserve.worker.profile.facts import bodies, facts_of, nodes_made
from nbserve.worker.profile.sampler import Sampler
from nbserve.worker.profile.tracer import Tracer, epoch_offset_ns
from nbserve.worker.runner import Outcome, Runner
from nbserve.worker.spec import WorkerSpec
from nbserve.worker.tracebacks import summary_of

BATCH, INITIALIZE = "nbserve.batch", "nbserve.initialize"
# A trace of this size has some million events, more than anybody can look at.
MAX_GROWTH_BYTES = 2 << 30
LOOK_NS = 200_000_000
OWNER_ONLY = 0o600


@dataclass(frozen=True)
class Order:
    """What the server asks for: so many batches (None: until it says stop), for so long at most."""

    id: str
    directory: Path
    batches: int | None = None
    seconds: float | None = None
    stacks: bool = False
    memory: bool = False
    shapes: bool = True

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> Order:
        values = {name: message[name] for name in cls.__dataclass_fields__ if name in message}
        return cls(**values | {"directory": Path(message["directory"])})


class Recording:
    """Starts, counts batches, stops, and writes its files. What goes wrong is kept in `errors`, never raised."""

    def __init__(self, order: Order, spec: WorkerSpec, roots: Collection[types.CodeType]) -> None:
        self.id = order.id
        self.errors: list[str] = []
        self.was_debugged = False
        self._order = order
        self._spec = spec
        self._tracer = Tracer(shapes=order.shapes, memory=order.memory, stacks=order.stacks, device=spec.device)
        self._sampler = Sampler(roots)
        self._allocations = Allocations() if order.memory else None
        self._handler: Any = None
        self._initializing: Any = None
        self._is_first = True
        self._batches: list[int] = []
        self._batches_with_grad = 0
        self._bodies: Counter[str] = Counter()
        self._rss_bytes = _rss_bytes()
        self._started_ns = self._ended_ns = time.monotonic_ns()
        self._ends_ns: int | None = None
        self._looks_ns = 0
        self._files: dict[str, str] = {}
        self._facts: dict[str, Any] = {}
        self._is_running = False

    def start(self, runner: Runner | None) -> bool:
        """Begin; without a runner in the midst of its start. False, with a reason in `errors`, where it cannot."""
        if not self._attempt("the recording cannot be kept", self._reserve):
            return False
        self._is_running = True
        self._attempt("torch's profiler did not start", self._tracer.start)
        if self._allocations is not None:
            self._attempt("the memory profile did not start", self._allocations.start)
        self._attempt("the sampler did not start", self._sampler.start)
        self._started_ns = time.monotonic_ns()
        if runner is not None:
            self._is_first = not runner.has_run
            self._serve(runner)
        else:
            self._initializing = record_function(INITIALIZE)
            self._initializing.__enter__()
            self._sampler.clock.begin()
        return True

    def loaded(self, runner: Runner) -> None:
        """The handler was initialized while it was recorded: batches come from here on."""
        self._end_initializing()
        self._serve(runner)

    def run(self, runner: Runner, batch: wire.Batch) -> Outcome:
        nodes = nodes_made()
        self._sampler.clock.begin()
        try:
            with record_function(f"{BATCH} {batch.batch_id}"):
                outcome = runner.run(batch)
        finally:
            self._sampler.clock.end()
        if not self._tracer.gave_way:
            self._batches.append(batch.batch_id)
            self._bodies.update(bodies(batch.rows))
            self._batches_with_grad += nodes_made() > nodes
        return outcome

    def is_due(self) -> bool:
        """Whether it has all that was asked for, or all that it can have."""
        now_ns = time.monotonic_ns()
        is_late = self._ends_ns is not None and now_ns > self._ends_ns
        has_all = self._order.batches is not None and len(self._batches) >= self._order.batches
        return is_late or has_all or self._tracer.gave_way or self._is_too_large(now_ns)

    def stop(self) -> None:
        """Leave nothing on. Nothing is written yet."""
        if not self._is_running:
            return
        self._is_running = False
        self._ended_ns = time.monotonic_ns()
        self._end_initializing()
        self._sampler.stop()
        if self._allocations is not None:
            self._attempt("the memory profile is not complete", self._allocations.stop)
        self._attempt("torch's profiler did not stop", self._tracer.stop)
        self.errors.extend(why for why in (self._tracer.why_less, self._tracer.why_over) if why is not None)

    def write(self) -> None:
        """Write the files, and ask the handler's modules for the facts."""
        self._attempt("the trace was not written", self._write_trace)
        self._attempt("the samples were not written", lambda: self._write("samples", self._sampler.result()))
        if self._allocations is not None:
            self._attempt("the memory profile was not written", self._write_memory)
        self._attempt("the handler's modules could not be looked at", self._look_at_handler)

    def result(self) -> WorkerRecording:
        return {
            "index": self._spec.worker_index,
            "pid": os.getpid(),
            "device": self._spec.device,
            "threads": torch.get_num_threads(),
            "batches": self._batches,
            "started_ns": self._started_ns,
            "ended_ns": self._ended_ns,
            "epoch_offset_ns": epoch_offset_ns(),
            "trace": self._files.get("trace"),
            "samples": self._files.get("samples"),
            "memory": self._files.get("memory"),
            "facts": self._facts,
            "error": "; ".join(self.errors) or None,
        }

    def _serve(self, runner: Runner) -> None:
        self._handler = runner.handler
        if self._order.seconds is not None:
            self._ends_ns = time.monotonic_ns() + round(self._order.seconds * 1e9)

    def _end_initializing(self) -> None:
        annotation, self._initializing = self._initializing, None
        if annotation is not None:
            annotation.__exit__(None, None, None)
            self._sampler.clock.end()

    def _is_too_large(self, now_ns: int) -> bool:
        """Whether its trace has taken more memory than it may; only now and then, as asking takes time."""
        if now_ns < self._looks_ns:
            return False
        self._looks_ns = now_ns + LOOK_NS
        if _rss_bytes() - self._rss_bytes <= MAX_GROWTH_BYTES:
            return False
        self.errors.append(
            f"the worker grew by more than {MAX_GROWTH_BYTES >> 30} GiB while it recorded: the recording ends after "
            f"{len(self._batches)} batches. Record fewer batches, or without --stacks and --memory"
        )
        return True

    def _reserve(self) -> None:
        """Find out now, not after all the work, whether files can be written there."""
        self._path("trace").touch(mode=OWNER_ONLY)

    def _write_trace(self) -> None:
        path = self._path("trace")
        if self._tracer.write(path):
            # Torch puts a file of its own in the place of ours.
            path.chmod(OWNER_ONLY)
            self._files["trace"] = str(path)
        else:
            path.unlink(missing_ok=True)

    def _write_memory(self) -> None:
        assert self._allocations is not None
        self._write("memory", {"device": self._spec.device, "torch": [], **self._allocations.result()})

    def _write(self, kind: str, values: dict[str, Any]) -> None:
        path = self._path(kind)
        path.touch(mode=OWNER_ONLY)
        path.write_bytes(orjson.dumps(values))
        self._files[kind] = str(path)

    def _look_at_handler(self) -> None:
        grad = {"batches_with_grad": self._batches_with_grad, "batches": len(self._batches)}
        self._facts |= {
            "grad": grad,
            "bodies": dict(self._bodies),
            "first_batch": self._is_first and bool(self._batches),
            "debugged": self.was_debugged,
        }
        if self._handler is not None:
            self._facts |= facts_of(self._handler, self._spec.device)

    def _path(self, kind: str) -> Path:
        return self._order.directory / f"w{self._spec.worker_index}.{kind}.json"

    def _attempt(self, what: str, step: Callable[[], object]) -> bool:
        """Take a step; a recording that fails must not take its worker along."""
        try:
            step()
        except Exception as error:
            self.errors.append(f"{what}: {summary_of(error)}")
            return False
        return True


def _rss_bytes() -> int:
    """What the process has in memory; 0 where that cannot be read cheaply."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")

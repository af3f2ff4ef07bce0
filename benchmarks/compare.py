"""The interleaved comparison: all servers of a row are up, one at a time runs, the others are frozen, round-robin."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import limits, verify
from benchmarks.kinds import Kind
from benchmarks.load import Load, press
from benchmarks.peers import Missing, python_of
from benchmarks.processes import NotStarted, ServerProcess
from benchmarks.servers.settings import Settings
from benchmarks.workloads import WORKLOADS, examples

VERIFIED_REQUESTS = 24
WARM_UP_S = 1
WARM_UP_CONNECTIONS = 32
LIMIT_S = 0.6
ANSWERS_PER_CONNECTION = 4
LONGEST_POINT_S = 8

Item = TypeVar("Item")
Record = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class Plan:
    """What is measured. `threads` is torch's threads per worker, the same in every row."""

    kinds: Sequence[Kind]
    workloads: Sequence[str]
    connections: Sequence[int]
    workers: Sequence[int]
    rounds: int
    seconds: int
    threads: int


@dataclass
class Contestant:
    """One server in one row of the comparison."""

    kind: Kind
    settings: Settings
    process: ServerProcess

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.port}{self.kind.path}"


def compare(plan: Plan, record: Record) -> None:
    """Measures every row of the plan; `record` gets ("point" | "limit" | "failure", values) as they come."""
    for workload in plan.workloads:
        expected = limits.expected(python_of("base"), workload, VERIFIED_REQUESTS)
        for workers in plan.workers:
            _Row(plan, workload, workers, expected, record).run()


class _Row:
    def __init__(self, plan: Plan, workload: str, workers: int, expected: list[Any], record: Record) -> None:
        self.plan, self.workload, self.workers, self.expected, self._record = plan, workload, workers, expected, record
        self.bodies = examples(workload, VERIFIED_REQUESTS)
        self.standing: dict[str, Contestant] = {}

    def run(self) -> None:
        with ExitStack() as stack, body_file(self.bodies[0]) as body:
            for kind in self.plan.kinds:
                if kind.can_freeze:
                    self._start(kind, stack)
            for round_index in range(self.plan.rounds):
                self._limits(round_index)
                for kind in rotated(self.plan.kinds, round_index):
                    self._turn(kind, round_index, body)

    def _start(self, kind: Kind, stack: ExitStack) -> Contestant | None:
        """Starts and verifies a server; a failure becomes a record and the server is left out."""
        settings = kind.settings(self.workload, self.workers, self.plan.threads)
        try:
            process = stack.enter_context(kind.launch(settings))
            kind.wait(process, settings)
            wrong = verify.check(
                settings.port, kind.path, WORKLOADS[self.workload].content_type, self.bodies, self.expected
            )
        except (Missing, NotStarted, OSError) as error:
            return self._fail(kind, str(error))
        if wrong:
            return self._fail(kind, f"wrong answer, so it is not timed: {wrong}")
        contestant = Contestant(kind, settings, process)
        if kind.can_freeze:
            process.freeze()
            self.standing[kind.name] = contestant
        return contestant

    def _turn(self, kind: Kind, round_index: int, body: Path) -> None:
        with ExitStack() as stack:
            contestant = self.standing.get(kind.name) if kind.can_freeze else self._start(kind, stack)
            if contestant is None:
                return
            contestant.process.thaw()
            warm_up = self._press(contestant, body, WARM_UP_CONNECTIONS, WARM_UP_S)
            for connections in self.plan.connections:
                cpu_s = contestant.process.cpu_s()
                seconds = long_enough(self.plan.seconds, connections, warm_up.requests_per_s)
                load = self._press(contestant, body, connections, seconds)
                cpu_s = contestant.process.cpu_s() - cpu_s
                self._point(kind, connections, round_index, load, cpu_s)
            if kind.can_freeze:
                contestant.process.freeze()

    def _press(self, contestant: Contestant, body: Path, connections: int, seconds: int) -> Load:
        content_type = WORKLOADS[self.workload].content_type
        return press(contestant.url, body, content_type, connections=connections, seconds=seconds)

    def _point(self, kind: Kind, connections: int, round_index: int, load: Load, cpu_s: float) -> None:
        where = {"server": kind.name, "connections": connections, "round": round_index}
        measured = {"requests_per_s": load.requests_per_s, "cpu_us": cpu_s * 1e6 / max(1, load.requests)}
        self._record("point", {**self._row_values(), **where, **asdict(load), **measured})

    def _limits(self, round_index: int) -> None:
        """One loop alone, with a worker's threads; for several workers also that many loops side by side."""
        for processes in sorted({1, self.workers}):
            rates = limits.measure(
                python_of("base"), self.workload, threads=self.plan.threads, processes=processes, seconds=LIMIT_S
            )
            values = {"processes": processes, "threads": self.plan.threads, "round": round_index, "rates": rates}
            self._record("limit", {**self._row_values(), **values})

    def _fail(self, kind: Kind, reason: str) -> None:
        self._record("failure", {**self._row_values(), "server": kind.name, "reason": reason})

    def _row_values(self) -> dict[str, Any]:
        return {"workload": self.workload, "workers": self.workers}


def long_enough(seconds: int, connections: int, requests_per_s: float) -> int:
    """Whole seconds for a point: at least ANSWERS_PER_CONNECTION, or wrk's end cuts off just the slow answers."""
    needed = math.ceil(ANSWERS_PER_CONNECTION * connections / max(1.0, requests_per_s))
    return max(seconds, min(needed, LONGEST_POINT_S))


def rotated(items: Sequence[Item], by: int) -> list[Item]:
    by %= max(1, len(items))
    return [*items[by:], *items[:by]]


@contextmanager
def body_file(body: bytes) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(prefix="nbb-body-") as file:
        file.write(body)
        file.flush()
        yield Path(file.name)

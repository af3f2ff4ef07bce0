"""Compare batching policies by simulation; the adaptive one is nbserve's own Batcher, driven with simulated time.

    python benchmarks/batching_sim.py [--quick]

Each worker serves one batch at a time in `fixed + row * rows` ms plus `handover` ms. Closed-loop clients send again an
exponential think time after their answer; open-loop requests arrive at random, each on a connection of its own.
`idle` takes what waits as soon as a worker is idle, `window` waits up to 5 ms from the oldest waiting request, `linger`
waits after each batch for min(10 % of its service time, 1 ms), `adaptive` is nbserve's default.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nbserve.config import EndpointConfig
from nbserve.server.batcher import Batcher
from nbserve.server.ticket import Ticket

MS = 1_000_000
POLICIES = ("idle", "window", "linger", "adaptive")


@dataclass(frozen=True)
class Case:
    """One kind of traffic on one kind of handler; times in ms, `open_rate` in requests per second."""

    clients: int = 0
    open_rate: float = 0.0
    think_ms: float = 0.3
    fixed_ms: float = 4.0
    row_ms: float = 0.5
    workers: int = 1
    max_batch_size: int = 32
    handover_ms: float = 0.2
    until_ms: float = 8000.0  # the first eighth is not counted: policies that learn are learning then
    slow_clients: int = 0  # think 50 times as long
    seed: int = 1


class Outcome(NamedTuple):
    per_second: float
    p50_ms: float
    p99_ms: float
    mean_rows: float


class Idle:
    """Reference: an idle worker takes what waits. `linger` adds a wait after each batch."""

    def __init__(self, case: Case, is_lingering: bool = False) -> None:
        self.case, self.is_lingering = case, is_lingering
        self.queue: list[Ticket] = []
        self.hold_until = self.target = 0

    def add(self, ticket: Ticket, now_ns: int) -> None:
        ticket.queued_ns = now_ns
        self.queue.append(ticket)

    def due_in_ns(self, now_ns: int, idle_workers: int) -> int | None:
        if not self.queue or not idle_workers:
            return None
        return 0 if len(self.queue) >= self.target else max(0, self.hold_until - now_ns)

    def take(self, now_ns: int, limit: int | None = None, idle_workers: int = 1) -> list[Ticket]:
        batch = self.queue[: self.case.max_batch_size]
        del self.queue[: self.case.max_batch_size]
        return batch

    def finished(self, batch: list[Ticket], service_ns: int, now_ns: int) -> None:
        if self.is_lingering and len(batch) + len(self.queue) > 1:
            self.target = min(self.case.max_batch_size, len(self.queue) + len(batch))
            self.hold_until = now_ns + min(service_ns // 10, MS)


def make_policy(name: str, case: Case) -> Any:
    if name in ("idle", "linger"):
        return Idle(case, name == "linger")
    config = EndpointConfig(max_batch_size=case.max_batch_size, queue_size=1_000_000)
    return Batcher(config.changed({"max_batch_delay_ms": 5.0}) if name == "window" else config)


@dataclass
class Simulation:
    """Events in order of time; the state is which workers are idle and what the policy holds."""

    case: Case
    policy: Any
    idle_workers: int = 0
    now_ns: int = 0
    latencies_ns: list[int] = field(default_factory=list)
    batch_sizes: list[int] = field(default_factory=list)
    _events: list[tuple[int, int, str, Any]] = field(default_factory=list)
    _order: Any = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self._random = random.Random(self.case.seed)
        self.idle_workers = self.case.workers

    def run(self) -> Outcome:
        for client in range(self.case.clients + self.case.slow_clients):
            self._push(self._random.random() * 0.5, "closed", client)
        if self.case.open_rate:
            self._push(self._random.expovariate(self.case.open_rate / 1000), "open", 1_000_000)
        while self._events[0][0] <= self.case.until_ms * MS:
            self.now_ns, _, kind, what = heapq.heappop(self._events)
            getattr(self, f"_on_{kind}")(what)
            self._dispatch()
        return self._outcome()

    def _on_closed(self, client: int) -> None:
        self._arrive(client)

    def _on_open(self, stranger: int) -> None:
        self._arrive(stranger)
        self._push(self._random.expovariate(self.case.open_rate / 1000), "open", stranger + 1)

    def _on_wake(self, _: None) -> None:
        """Only so that `_dispatch` looks again."""

    def _on_done(self, done: tuple[list[Ticket], int]) -> None:
        batch, service_ns = done
        self.idle_workers += 1
        self.batch_sizes.append(len(batch))
        for ticket in batch:
            if ticket.received_ns >= self.case.until_ms * MS / 8:
                self.latencies_ns.append(self.now_ns - ticket.received_ns)
            client = ticket.source
            if isinstance(client, int) and client < 1_000_000:
                think_ms = self.case.think_ms * (1 if client < self.case.clients else 50)
                self._push(self._random.expovariate(1 / think_ms), "closed", client)
        self.policy.finished(batch, service_ns, self.now_ns)

    def _arrive(self, source: int) -> None:
        self.policy.add(Ticket(next(self._order), b"", b"", self.now_ns, source), self.now_ns)

    def _dispatch(self) -> None:
        while (due_ns := self.policy.due_in_ns(self.now_ns, self.idle_workers)) == 0:
            batch = self.policy.take(self.now_ns, idle_workers=self.idle_workers)
            service_ms = self.case.handover_ms + self.case.fixed_ms + self.case.row_ms * len(batch)
            self.idle_workers -= 1
            self._push(service_ms, "done", (batch, int(service_ms * MS)))
        if due_ns:
            self._push(due_ns / MS, "wake", None)

    def _push(self, in_ms: float, kind: str, what: Any) -> None:
        heapq.heappush(self._events, (self.now_ns + max(1, int(in_ms * MS)), next(self._order), kind, what))

    def _outcome(self) -> Outcome:
        latencies = sorted(self.latencies_ns)
        p50, p99 = (latencies[int(len(latencies) * share)] / MS for share in (0.5, 0.99))
        rows = sum(self.batch_sizes) / len(self.batch_sizes)
        return Outcome(len(latencies) / (self.case.until_ms * 7 / 8) * 1000, p50, p99, rows)


def simulate(policy: str, case: Case) -> Outcome:
    return Simulation(case, make_policy(policy, case)).run()


def cases(fixed_ms: float, row_ms: float, workers: int, until_ms: float) -> dict[str, Case]:
    """The traffic of the table, by name."""
    common: dict[str, Any] = {"fixed_ms": fixed_ms, "row_ms": row_ms, "workers": workers, "until_ms": until_ms}
    capacity = workers * 32 / (fixed_ms + 32 * row_ms + 0.2) * 1000
    table = {
        f"{clients} closed, think {think_ms:g} ms": Case(clients=clients, think_ms=think_ms, **common)
        for think_ms in (0.3, 1.0, 4.0)
        for clients in (1, 2, 8, 32, 48, 96)
    }
    table |= {f"open, {load:.0%} load": Case(open_rate=load * capacity, **common) for load in (0.2, 0.5, 0.8, 0.95)}
    table["8 closed + 30 % open"] = Case(clients=8, open_rate=0.3 * capacity, **common)
    table["8 closed + 24 slow closed"] = Case(clients=8, slow_clients=24, **common)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="simulate two seconds of each case instead of eight")
    until_ms = 2000.0 if parser.parse_args().quick else 8000.0
    for workers in (1, 2, 4):
        for fixed_ms, row_ms in ((4, 0.5), (20, 0.05), (0.5, 2), (0.05, 0.002)):
            print(f"\n{workers} workers, service {fixed_ms} + {row_ms}*B ms: requests/s (p50/p99 ms)")
            for name, case in cases(fixed_ms, row_ms, workers, until_ms * min(1.0, (fixed_ms + row_ms) / 2)).items():
                print(f"  {name:26}", _row(case), flush=True)


def _row(case: Case) -> str:
    outcomes = {policy: simulate(policy, case) for policy in POLICIES}
    others = [outcome for policy, outcome in outcomes.items() if policy != "adaptive"]
    rate = outcomes["adaptive"].per_second / max(outcome.per_second for outcome in others)
    p99 = outcomes["adaptive"].p99_ms / min(outcome.p99_ms for outcome in others)
    cells = (f"{name} {one.per_second:6.0f} ({one.p50_ms:.1f}/{one.p99_ms:.1f})" for name, one in outcomes.items())
    return " | ".join(cells) + f" | against best x{rate:.2f}, p99 x{p99:.2f}"


if __name__ == "__main__":
    main()

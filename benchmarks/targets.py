"""The targets nbserve set itself, each judged from a run's results. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.results import SELF, UNBATCHED, Results, Row


@dataclass(frozen=True)
class Verdict:
    """One target: what was asked, what came out (None: not measured), and whether more is better."""

    what: str
    target: float
    measured: float | None
    unit: str = "x"
    at_least: bool = True
    against: str = ""

    @property
    def is_met(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured >= self.target if self.at_least else self.measured <= self.target


def verdicts(results: Results) -> list[Verdict]:
    """Every target; those whose rows were not measured come with `measured` None."""
    return [*_speed(results), *_alone(results), *_tails(results), *_starts(results), *_memory(results)]


def _speed(results: Results) -> Iterator[Verdict]:
    for connections in (32, 128):
        yield _against_peers(results, Row("echo", 1, connections), 2.0)
    for connections in (32, 128):
        yield _against_peers(results, Row("mlp", 1, connections), 1.3)
    for workload, one, two in (("mlp", 0.75, None), ("encoder", 0.95, 0.9), ("image", 0.95, 0.9)):
        for connections in (32, 128):
            row = Row(workload, 1, connections)
            yield Verdict(f"{_name(row)}: share of the in-process limit", one, results.ratio_to_limit(row, 1))
        for connections in (32, 128) if two else ():
            row = Row(workload, 2, connections)
            yield Verdict(f"{_name(row)}: share of twice the limit", two, results.ratio_to_limit(row, 1, times=2))
            yield Verdict(f"{_name(row)}: share of two loops side by side", two, results.ratio_to_limit(row, 2))


def _against_peers(results: Results, row: Row, target: float) -> Verdict:
    peers = results.peers(row)
    fastest = max(peers, key=lambda server: peers[server].requests_per_s, default="")
    measured = results.ratio_to_peer(row, fastest) if fastest else None
    return Verdict(f"{_name(row)}: requests/s against the fastest peer", target, measured, against=fastest)


def _alone(results: Results) -> Iterator[Verdict]:
    for workload in ("echo", "mlp", "encoder", "image"):
        row = Row(workload, 1, 1)
        own, other = results.cell(row, SELF), results.cell(row, UNBATCHED)
        ratio = own.p50_ms / other.p50_ms if own and other and other.p50_ms else None
        yield Verdict(f"{_name(row)}: p50 against FastAPI without batching", 1.2, ratio, at_least=False)


def _tails(results: Results) -> Iterator[Verdict]:
    for workload in ("echo", "mlp", "encoder", "image"):
        row = Row(workload, 1, 32)
        own, peers = results.cell(row, SELF), results.peers(row)
        best = min(peers, key=lambda server: peers[server].p99_ms, default="")
        ratio = own.p99_ms / peers[best].p99_ms if own and best else None
        yield Verdict(f"{_name(row)}: p99 against the best peer's", 1.0, ratio, at_least=False, against=best)


def _starts(results: Results) -> Iterator[Verdict]:
    extras = results.extras
    edit, notebook = extras.get("redeploy") or {}, extras.get("notebook") or {}
    yield Verdict("cold `nbserve serve BUNDLE` to the first answer", 2.5, _of(extras, "cold_s", SELF), "s", False)
    yield Verdict("`%%serve` to the first answer", 1.0, notebook.get("first_answer_s"), "s", False)
    yield Verdict("re-run cell to the first new answer", 0.5, notebook.get("rerun_s"), "s", False)
    yield Verdict("new bundle over a running one, to the first new answer", 0.5, edit.get("seconds"), "s", False)
    yield Verdict("failed requests at a new bundle, 200 requests/s", 0, edit.get("failed"), "", False)
    yield Verdict("failed requests at a re-run cell, 200 requests/s", 0, notebook.get("failed"), "", False)


def _memory(results: Results) -> Iterator[Verdict]:
    extras = results.extras
    shared, idle = extras.get("shared_weights_mb") or {}, extras.get("idle") or {}
    own = (extras.get("memory") or {}).get(SELF) or {}
    ratio = shared["4"] / shared["1"] if {"1", "4"} <= shared.keys() else None
    yield Verdict("PSS with one MLP worker", 300, own.get("pss_mb"), "MB", False)
    yield Verdict("PSS of four workers of a 1 GiB model against one", 1.7, ratio, "x", False)
    yield Verdict("PSS of an idle server, without its nursery", 60, idle.get("server_mb"), "MB", False)


def _of(extras: dict[str, dict[str, float]], group: str, server: str) -> float | None:
    return (extras.get(group) or {}).get(server)


def _name(row: Row) -> str:
    workers = "1 worker" if row.workers == 1 else f"{row.workers} workers"
    return f"{row.workload}, {row.connections} connection{'s' * (row.connections > 1)}, {workers}"

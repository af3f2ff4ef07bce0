"""`python -m benchmarks`: nbserve and its peers side by side on this machine; tables go into benchmarks/README.md."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import memory, notebook_start, report, start
from benchmarks.compare import Plan, compare
from benchmarks.kinds import KINDS
from benchmarks.peers import Missing, require_program
from benchmarks.processes import NotStarted
from benchmarks.results import SELF
from benchmarks.workloads import WORKLOADS

HERE = Path(__file__).resolve().parent
TITLES = {kind.name: kind.title for kind in KINDS.values()}
PARTS = ("compare", "start", "memory", "notebook")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.report:
        report.write(HERE / "README.md", json.loads(options.report.read_text()), TITLES)
        return 0
    signal.signal(signal.SIGTERM, _interrupt)
    plan = _plan(options)
    run = _Run(plan)
    try:
        require_program("wrk")
        run.measure(options.parts)
    except KeyboardInterrupt:
        print("interrupted: all servers are stopped", file=sys.stderr)
        return 130
    finally:
        path = run.save()
    print(report.markdown(run.records, TITLES))
    print(f"\nrecords: {path}")
    if not options.quick:
        report.write(HERE / "README.md", run.records, TITLES)
    return 0


class _Run:
    """One run: collects records and says what it does."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.started_s = time.monotonic()
        self.records: dict[str, Any] = {"point": [], "limit": [], "failure": [], "extras": {}, "run": self._about()}

    def measure(self, parts: Sequence[str]) -> None:
        if "compare" in parts:
            compare(self.plan, self._record)
        if "start" in parts:
            self._start()
        if "memory" in parts:
            self._memory()
        if "notebook" in parts and self._has_nbserve():
            self._extra("notebook", None, notebook_start.measure)
            self._edit(self.records["extras"].get("notebook", {}).get("rerun_s"))

    def save(self) -> Path:
        self.records["run"] = self._about()
        folder = HERE / "results"
        folder.mkdir(exist_ok=True)
        path = folder / f"{datetime.datetime.now():%Y-%m-%d-%H%M%S}.json"
        path.write_text(json.dumps(self.records, indent=1) + "\n")
        return path

    def _start(self) -> None:
        for kind in self.plan.kinds:
            self._extra("cold_s", kind.name, lambda kind=kind: start.cold_s(kind, self.plan.threads))
            if kind.name != SELF:
                self._extra("edit_s", kind.name, lambda kind=kind: start.restart_s(kind, self.plan.threads))
        if self._has_nbserve():
            self._extra("redeploy", None, lambda: start.redeploy(self.plan.threads))
            self._edit(self.records["extras"].get("redeploy", {}).get("seconds"))

    def _edit(self, seconds: float | None) -> None:
        """nbserve's edit: the re-run cell, capture included, where a kernel was measured; else the new bundle."""
        if seconds is not None:
            self.records["extras"].setdefault("edit_s", {})[SELF] = seconds

    def _memory(self) -> None:
        for kind in self.plan.kinds:
            self._extra("memory", kind.name, lambda kind=kind: memory.of_server(kind, threads=self.plan.threads))
        if self._has_nbserve():
            self._extra("idle", None, memory.of_idle_server)
            for workers in (1, 4):
                self._extra("shared_weights_mb", str(workers), lambda n=workers: memory.of_shared_weights(n))

    def _has_nbserve(self) -> bool:
        return any(kind.name == SELF for kind in self.plan.kinds)

    def _extra(self, group: str, key: str | None, measure: Callable[[], Any]) -> None:
        """One measurement besides the comparison; a failure becomes a record."""
        try:
            value = measure()
        except (Missing, NotStarted, OSError, RuntimeError) as error:
            self._record("failure", {"server": key or SELF, "workload": group, "reason": str(error)})
            return
        extras = self.records["extras"]
        if key is None:
            extras[group] = value
        else:
            extras.setdefault(group, {})[key] = value
        print(f"{self._clock()} {group} {key or ''} {value}", flush=True)

    def _record(self, kind: str, values: dict[str, Any]) -> None:
        self.records[kind].append(values)
        print(f"{self._clock()} {_line(kind, values)}", flush=True)

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self.started_s)
        return f"[{seconds // 60:2d}:{seconds % 60:02d}]"

    def _about(self) -> dict[str, Any]:
        return {
            "date": f"{datetime.date.today():%Y-%m-%d}",
            "machine": machine(),
            "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
            "rounds": self.plan.rounds,
            "seconds": self.plan.seconds,
            "threads": self.plan.threads,
            "minutes": (time.monotonic() - self.started_s) / 60,
        }


def machine() -> str:
    """What the figures were measured on."""
    return f"{os.cpu_count()} cores of {_cpu_name()}, Python {platform.python_version()}"


def _line(kind: str, values: dict[str, Any]) -> str:
    where = f"{values['workload']} x{values.get('workers', '')} {values.get('server', 'limit'):<10}"
    if kind == "failure":
        return f"{where} FAILED: {values['reason']}"
    if kind == "limit":
        best = max(sum(rates[size] for rates in values["rates"]) for size in values["rates"][0])
        return f"{where} {values['processes']} loop(s) {best:9.0f}/s"
    latency = f"{values['p50_ms']:8.2f}/{values['p99_ms']:.2f} ms"
    errors = f"  ERRORS {values['errors']}" if values["errors"] else ""
    rate = f"c={values['connections']:<4}{values['requests_per_s']:9.0f}/s"
    return f"{where} {rate} {latency} {values['cpu_us']:8.0f} us{errors}"


def _plan(options: argparse.Namespace) -> Plan:
    threads = options.threads or max(1, (os.cpu_count() or 1) // max(options.workers))
    return Plan(
        kinds=[KINDS[name] for name in options.servers],
        workloads=options.workloads,
        connections=options.connections,
        workers=options.workers,
        rounds=1 if options.quick else options.rounds,
        seconds=1 if options.quick else options.seconds,
        threads=threads,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--servers", type=_names(KINDS), default=list(KINDS), help="comma-separated; default: all")
    parser.add_argument("--workloads", type=_names(WORKLOADS), default=list(WORKLOADS), help="default: all")
    parser.add_argument("--connections", type=_numbers, default=[1, 32, 128], help="default: 1,32,128")
    parser.add_argument("--workers", type=_numbers, default=[1, 2], help="default: 1,2")
    parser.add_argument(
        "--threads", type=int, default=0, help="torch threads per worker; default: cores / most workers"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="seconds per point; default: 2")
    parser.add_argument(
        "--parts", type=_names(dict.fromkeys(PARTS)), default=list(PARTS), help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument("--quick", action="store_true", help="one round of 1 s a point; README.md is not touched")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="only write README.md's tables from a run's records"
    )
    return parser


def _names(known: dict[str, Any]) -> Callable[[str], list[str]]:
    def split(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return split


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _interrupt(signal_number: int, frame: object) -> None:
    raise KeyboardInterrupt

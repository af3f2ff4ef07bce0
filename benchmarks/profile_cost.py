"""`python -m benchmarks.profile_cost`: what recording a profile costs a worker, while it records and otherwise."""

from __future__ import annotations

import argparse
import datetime
import statistics
import sys
import tempfile
import timeit
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from benchmarks.lone_worker import ROWS, LoneKind, LoneWorker
from benchmarks.report import PROFILE_COST, between_markers, number, table
from benchmarks.run import machine

README = Path(__file__).with_name("README.md")
# Workload -> batches of a turn.
BATCHES = {"echo": 50, "encoder": 5}
# What Worker._run does for the recorder when nothing is recorded.
FLAG_TEST = """
recorder = worker._recorder if worker._recorder.is_on else None
if recorder is None: pass
if recorder is not None: pass
"""
REPEATS, LOOPS = 7, 200_000


@dataclass(frozen=True)
class Variant:
    """A worker; `options` are what it records with while it is measured (None: it does not), `before` once before."""

    title: str
    options: tuple[str, ...] | None = None
    before: bool = False


BASE = Variant("never recorded")
VARIANTS = (
    BASE,
    Variant("the same once more (noise)"),
    Variant("has recorded before", before=True),
    Variant("records, without shapes", ()),
    Variant("records", ("shapes",)),
    Variant("records, `--memory`", ("shapes", "memory")),
    Variant("records, `--stacks`", ("shapes", "stacks")),
)


@dataclass(frozen=True)
class Cost:
    """Microseconds of a batch in each turn, and of the recording's end where there was one."""

    batch_us: list[float] = field(default_factory=list)
    end_us: list[float] = field(default_factory=list)


# Workload -> variant -> its cost.
Costs = Mapping[str, Mapping[Variant, Cost]]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    rounds = 3 if options.quick else options.rounds
    costs = {workload: measure(workload, rounds) for workload in BATCHES}
    tables = markdown(costs, flag_test_ns(), f"--rounds {rounds}")
    print(tables)
    if not options.quick:
        README.write_text(between_markers(README.read_text(), tables, PROFILE_COST))
    return 0


def measure(workload: str, rounds: int) -> Mapping[Variant, Cost]:
    """All workers are up at once and take short turns, so that what slows one down slows down all."""
    costs = {variant: Cost() for variant in VARIANTS}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="nbb-profile-"))
        workers = {each: stack.enter_context(LoneWorker(LoneKind(workload=workload))) for each in VARIANTS}
        for variant, worker in workers.items():
            if variant.before:
                _turn(worker, ("shapes", "memory", "stacks"), folder, workload)
            worker.batch_us(BATCHES[workload])
        for _ in range(rounds):
            for variant, worker in workers.items():
                batch_us, end_us = _turn(worker, variant.options, folder, workload)
                costs[variant].batch_us.append(batch_us)
                costs[variant].end_us.extend(end_us)
    return costs


def _turn(worker: LoneWorker, options: tuple[str, ...] | None, folder: str, workload: str) -> tuple[float, list[float]]:
    """Microseconds of a batch, and of the end of the recording if there is one."""
    if options is None:
        return worker.batch_us(BATCHES[workload]), []
    order = {name: name in options for name in ("shapes", "memory", "stacks")}
    worker.order_us("profile", "profiling", id="turn", directory=folder, **order)
    batch_us = worker.batch_us(BATCHES[workload])
    return batch_us, [worker.order_us("profile_stop", "profiled", id="turn")]


def flag_test_ns() -> float:
    """Nanoseconds of what is left in a batch when nothing is recorded."""
    worker = SimpleNamespace(_recorder=SimpleNamespace(is_on=False))
    best_s = min(timeit.repeat(FLAG_TEST, globals={"worker": worker}, repeat=REPEATS, number=LOOPS))
    return best_s / LOOPS * 1e9


def markdown(costs: Costs, test_ns: float, options: str) -> str:
    """A row for each variant: medians, and against the base the median of the turns' ratios with their quartiles."""
    head = (
        f"{datetime.date.today():%Y-%m-%d}, {machine()}; `python -m benchmarks.profile_cost {options}`.\n"
        "In brackets the ratio to the first row: median and quartiles of the turns' ratios. The test whether a\n"
        f"recording is on takes {number(test_ns)} ns a batch."
    )
    columns = [
        title
        for workload, count in BATCHES.items()
        if workload in costs
        for title in (f"{workload}, µs/batch of {ROWS}", f"{workload}, ms to end after {count} batches")
    ]
    variants = next(iter(costs.values()))
    rows = [[each.title, *(cell for cost in costs.values() for cell in _cells(cost, each))] for each in variants]
    return f"{head}\n\n{table(['a worker that', *columns], rows)}"


def _cells(costs: Mapping[Variant, Cost], variant: Variant) -> tuple[str, str]:
    own = costs[variant]
    batch = number(statistics.median(own.batch_us))
    if variant is not BASE:
        ratios = [one / base for one, base in zip(own.batch_us, costs[BASE].batch_us, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        batch += f" ({middle:.2f}; {low:.2f} to {high:.2f})"
    return batch, number(statistics.median(own.end_us) / 1e3) if own.end_us else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="turns of each worker; default: 40")
    parser.add_argument("--quick", action="store_true", help="three turns of each; README.md is not touched")
    return parser


if __name__ == "__main__":
    sys.exit(main())

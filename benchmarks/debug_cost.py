"""`python -m benchmarks.debug_cost`: what the debugger costs the echo endpoint when off, on, waiting and armed."""

from __future__ import annotations

import argparse
import datetime
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import lone_worker
from benchmarks.compare import WARM_UP_CONNECTIONS, WARM_UP_S, body_file, rotated
from benchmarks.kinds import KINDS, Kind
from benchmarks.load import Load, press
from benchmarks.lone_worker import LoneKind
from benchmarks.peers import require_program
from benchmarks.report import DEBUG_COST, between_markers, number, table
from benchmarks.run import machine
from benchmarks.servers.settings import Settings
from benchmarks.workloads import JSON, examples

README = Path(__file__).with_name("README.md")
WORKLOAD, WORKERS, THREADS = "echo", 1, 1
MANY = 32
# What `nbserve attach` says once it is attached.
IN_PLACE = ("for a breakpoint()", "will stop in")
ATTACHED_S = 120


@dataclass(frozen=True)
class Variant:
    """A way to run the endpoint; `attach` are options of an `nbserve attach` that stays for the whole turn.

    `alone` is the same for a worker without a server (None: nothing that a worker would notice).
    """

    title: str
    options: tuple[str, ...] = ("--debug",)
    attach: tuple[str, ...] | None = None
    alone: LoneKind | None = None


NEVER = LoneKind(has_agent=True, stop=("handle", "False"))
BASE = Variant("without `--debug`", options=(), alone=LoneKind())
VARIANTS = (
    BASE,
    Variant("the same once more (noise)", options=(), alone=LoneKind()),
    Variant("`--debug`, nobody attached", alone=LoneKind(has_agent=True)),
    Variant("`--debug`, a debugger waits for a `breakpoint()`", attach=()),
    Variant(
        "`--debug`, `--at handle --if False` (and its stand-in)",
        attach=("--at", "handle", "--if", "False"),
        alone=NEVER,
    ),
)


@dataclass(frozen=True)
class Turn:
    """What one variant did in one round: one connection, then many, and the CPU time of a request then."""

    alone: Load
    many: Load
    cpu_us: float


MEASURES: dict[str, Callable[[Turn], float]] = {
    f"requests/s, {MANY} connections": lambda turn: turn.many.requests_per_s,
    f"p50 ms, {MANY} connections": lambda turn: turn.many.p50_ms,
    "p50 ms, 1 connection": lambda turn: turn.alone.p50_ms,
    "CPU µs/request": lambda turn: turn.cpu_us,
}
ALONE = f"worker alone, µs/batch of {lone_worker.ROWS}"
# What was measured -> in each variant -> in each round.
Columns = dict[str, dict[Variant, list[float]]]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    require_program("wrk")
    rounds, seconds = (1, 1) if options.quick else (options.rounds, options.seconds)
    tables = markdown(measure(rounds, seconds), f"--rounds {rounds} --seconds {seconds}")
    print(tables)
    if not options.quick:
        README.write_text(between_markers(README.read_text(), tables, DEBUG_COST))
    return 0


def measure(rounds: int, seconds: int) -> Columns:
    """Each variant once a round, in rotating order. Each turn has a server of its own: two that were started alike
    differ by up to a third for as long as they live, which would pass for a difference between variants."""
    columns: Columns = {name: {variant: [] for variant in VARIANTS} for name in (*MEASURES, ALONE)}
    with body_file(examples(WORKLOAD, 1)[0]) as body:
        for round_index in range(rounds):
            for variant in rotated(VARIANTS, round_index):
                turn = _turn(variant, body, seconds)
                for name, of in MEASURES.items():
                    columns[name][variant].append(of(turn))
            for variant, batch_us in _alone().items():
                columns[ALONE][variant].append(batch_us)
            _print_round(round_index, columns)
    return columns


def _alone() -> dict[Variant, float]:
    kinds = {variant: variant.alone for variant in VARIANTS if variant.alone is not None}
    return dict(zip(kinds, lone_worker.medians_us(list(kinds.values())), strict=True))


def _print_round(round_index: int, columns: Columns) -> None:
    for name, series in columns.items():
        told = ", ".join(number(values[-1]) if values else "-" for values in series.values())
        print(f"round {round_index + 1}, {name}: {told}", flush=True)


def _turn(variant: Variant, body: Path, seconds: int) -> Turn:
    with ExitStack() as stack:
        # A runtime folder of its own, so that `nbserve attach` finds this server.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="nbb-run-"))
        kind = _kind(variant, folder)
        settings = kind.settings(WORKLOAD, WORKERS, THREADS)
        server = stack.enter_context(kind.launch(settings))
        kind.wait(server, settings)
        if variant.attach is not None:
            stack.enter_context(_debugger(variant.attach, folder))
        url = f"http://127.0.0.1:{settings.port}{kind.path}"
        _press(url, body, WARM_UP_CONNECTIONS, WARM_UP_S)
        alone = _press(url, body, 1, seconds)
        used_s = server.cpu_s()
        many = _press(url, body, MANY, seconds)
        used_s = server.cpu_s() - used_s
    return Turn(alone, many, used_s * 1e6 / many.requests)


def _press(url: str, body: Path, connections: int, seconds: int) -> Load:
    load = press(url, body, JSON, connections=connections, seconds=seconds)
    if load.errors or not load.requests:
        raise RuntimeError(f"{load.errors} of {load.requests} requests failed")
    return load


@contextmanager
def _debugger(options: Sequence[str], folder: str) -> Iterator[None]:
    """`nbserve attach`, in place before the block runs and still there at its end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "nbserve", "attach", "bench", "--wait", str(ATTACHED_S), *options],
        env={**os.environ, "NBSERVE_RUNTIME_DIR": folder},
        stdin=subprocess.PIPE,  # It stays open: its end would detach.
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    said: list[str] = []
    try:
        said.extend(_up_to(IN_PLACE, process.stdout or ()))
        yield
        is_there = process.poll() is None
    finally:
        process.kill()
        said.append(process.communicate()[0])
    if not is_there:
        raise RuntimeError(f"the debugger left during the measurement: {''.join(said)[-500:]}")


def _up_to(signs: Sequence[str], lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield line
        if any(sign in line for sign in signs):
            return


def _kind(variant: Variant, folder: str) -> Kind:
    """nbserve as the comparison starts it, with the variant's options."""
    plain = KINDS["nbserve"]

    def command(python: str, settings: Settings) -> list[str]:
        return [*plain.command(python, settings), *variant.options]

    return replace(plain, command=command, variables=(*plain.variables, ("NBSERVE_RUNTIME_DIR", folder)))


def markdown(columns: Columns, options: str) -> str:
    """A row for each variant: medians, and against the base the median of the rounds' ratios with their quartiles."""
    head = (
        f"{datetime.date.today():%Y-%m-%d}, {machine()}; `python -m benchmarks.debug_cost {options}`,\n"
        f"{WORKERS} worker. In brackets the ratio to the first row: median and quartiles of the rounds' ratios."
    )
    variants = next(iter(columns.values()))
    rows = [[variant.title, *(_cell(series, variant) for series in columns.values())] for variant in variants]
    return f"{head}\n\n{table(['echo', *columns], rows)}"


def _cell(series: dict[Variant, list[float]], variant: Variant) -> str:
    if not series[variant]:
        return ""
    median = number(statistics.median(series[variant]))
    if variant is BASE:
        return median
    ratios = [own / base for own, base in zip(series[variant], series[BASE], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return f"{median} ({middle:.2f}; {low:.2f} to {high:.2f})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.debug_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=int, default=1, help="seconds per point; default: 1")
    parser.add_argument("--quick", action="store_true", help="one round of 1 s a point; README.md is not touched")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""`python -m benchmarks.autotune`: what auto-tune finds against the defaults and a coarse grid made by hand.

Three handlers, each with a goal for the 99th percentile of latency. All settings run at once, on workers of their own;
all are measured in short turns, each under all loads that may be its best. What counts is the most within the goal.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.report import AUTOTUNE, between_markers, number, table
from benchmarks.run import machine
from nbserve.capture.capture import capture
from nbserve.deployment import Server
from nbserve.profiling.generator import LoadGenerator
from nbserve.profiling.requests import recorded
from nbserve.tune.meter import Meter, meter
from nbserve.tune.points import Ask, Goal, Load, Reading, Settings
from nbserve.verbs import Endpoint

README = Path(__file__).with_name("README.md")
CLIENTS = (1, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
BLOCK_S, WARM_S = 0.8, 0.2
# Times the goal: no higher load is tried. Share of the most in the first turn: loads that may be the best.
HOPELESS, ENOUGH = 1.6, 0.75
GRID = [
    Settings(workers, 0, size, "window" if delay_ms else "adaptive", delay_ms)
    for workers, size, delay_ms in itertools.product((1, 2), (8, 32), (0.0, 5.0))
]


@dataclass(frozen=True)
class Kind:
    """A handler, what it is asked, and its goal."""

    title: str
    cell: str
    body: object
    p99_ms: float


KINDS = {
    "cheap": Kind(
        "cheap: a perceptron, 32 numbers to 10",
        """
import nbserve
import torch

class Bench(nbserve.Handler):
    def initialize(self, context):
        layers = torch.nn.Linear(32, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10)
        self.model = torch.nn.Sequential(*layers).eval()

    def preprocess(self, requests):
        return torch.tensor(requests, dtype=torch.float32)

    def postprocess(self, outputs):
        return outputs.argmax(1).tolist()
""",
        [0.5] * 32,
        20.0,
    ),
    "batch": Kind(
        "heavy per batch: a wait of 20 ms + 0.1 ms a row, as for a GPU",
        """
import time

import nbserve

class Bench(nbserve.Handler):
    def inference(self, batch):
        time.sleep(0.02 + 0.0001 * len(batch))
        return batch
""",
        [1, 2, 3],
        100.0,
    ),
    "row": Kind(
        "heavy per row: two convolutions on 128 x 128 pixels, which fit the processor's cache only a few at a time",
        """
import nbserve
import numpy as np
import torch

class Bench(nbserve.Handler):
    def initialize(self, context):
        self.model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.ReLU(),
            torch.nn.Conv2d(32, 32, 3, padding=1), torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, 10),
        ).eval()

    def preprocess(self, requests):
        images = [np.frombuffer(image, np.uint8).reshape(3, 128, 128) for image in requests]
        return torch.from_numpy(np.stack(images)).float() / 255

    def postprocess(self, outputs):
        return outputs.argmax(1).tolist()
""",
        bytes(3 * 128 * 128),
        100.0,
    ),
}


@dataclass
class Contender:
    """Settings on workers of their own, and what they did under each load that makes sense for them, turn by turn."""

    title: str
    settings: Settings
    meter: Meter
    turns: dict[Load, list[Reading]] = field(default_factory=dict)

    def survey(self, goal: Goal) -> None:
        """One look at all loads; the turns are for those with which it may be at its best."""
        seen: dict[Load, Reading] = {}
        for clients in CLIENTS:
            seen[Load(clients)] = self._ask(Load(clients))
            if seen[Load(clients)].p99_ms > HOPELESS * goal.p99_ms:
                break
        most = max(reading.throughput for reading in seen.values())
        self.turns = {load: [] for load, reading in seen.items() if reading.throughput > ENOUGH * most}

    def measure(self) -> None:
        for load, readings in self.turns.items():
            readings.append(self._ask(load))

    def best(self, goal: Goal) -> Load:
        """The load with the most throughput within the goal, by medians; else that which came nearest."""
        kept = [load for load in self.turns if self.p99_ms(load) <= goal.p99_ms]
        return max(kept, key=self.throughput) if kept else min(self.turns, key=self.p99_ms)

    def throughput(self, load: Load) -> float:
        return statistics.median(reading.throughput for reading in self.turns[load])

    def p99_ms(self, load: Load) -> float:
        return statistics.median(reading.p99_ms for reading in self.turns[load])

    def words(self, load: Load, goal: Goal) -> str:
        """What it did under this load: `310/s, 40.1 ms`."""
        late = " (missed)" if self.p99_ms(load) > goal.p99_ms else ""
        return f"{number(self.throughput(load))}/s, {number(self.p99_ms(load))} ms{late}"

    def _ask(self, load: Load) -> Reading:
        return self.meter.measure(Ask(self.settings, load, BLOCK_S, WARM_S, ""))


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    parts = [part for name in options.only or KINDS for part in measure(name, options.seconds, options.rounds)]
    words = " ".join(sys.argv[1:] if arguments is None else arguments)
    head = f"{datetime.date.today():%Y-%m-%d}, {machine()}; `python -m benchmarks.autotune {words}".rstrip() + "`."
    text = "\n\n".join([head, *parts])
    print(text)
    if options.write:
        README.write_text(between_markers(README.read_text(), text, AUTOTUNE))
    return 0


def measure(name: str, seconds: float, rounds: int) -> Iterator[str]:
    """Tune one handler, then measure all settings in turns; gives its part of the report."""
    kind = KINDS[name]
    goal = Goal(kind.p99_ms)
    with ExitStack() as stack:
        endpoint = stack.enter_context(_Served(name, kind))
        tuned = endpoint.tune(kind.p99_ms, seconds=seconds, on_progress=_tell)
        generator = stack.enter_context(LoadGenerator(recorded(endpoint)))
        settings = {"tuned": tuned.best.settings, "default": Settings()}
        settings |= {f"grid {number}": grid for number, grid in enumerate(GRID, 1) if grid != Settings()}
        contenders = [
            Contender(title, each, stack.enter_context(meter(endpoint, each, generator, goal, _tell)))
            for title, each in settings.items()
        ]
        for contender in contenders:
            _tell(f"{name}: a look at {contender.settings.words()}")
            contender.survey(goal)
        for turn in range(rounds):
            if turn == 1:
                _all_take(contenders, contenders[0].best(goal))
            for contender in contenders if turn % 2 == 0 else reversed(contenders):
                _tell(f"{name}: turn {turn + 1} of {rounds}, {contender.settings.words()}")
                contender.measure()
    yield f"#### {kind.title}, p99 within {kind.p99_ms:g} ms"
    took = f"after {tuned.seconds:.0f} s and {tuned.state.measured} measurements"
    yield f"`tune` said {took}: {tuned.text.splitlines()[0]}."
    yield _table(contenders, goal)


class _Served:
    """An endpoint on a server of its own, with one recorded request."""

    def __init__(self, name: str, kind: Kind) -> None:
        self._name = name
        self._kind = kind
        self._stack = ExitStack()

    def __enter__(self) -> Endpoint:
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="nbb-autotune-"))
        namespace: dict[str, object] = {"__name__": "__main__"}
        exec(compile(self._kind.cell, "<benchmark cell>", "exec"), namespace)
        cell = (self._kind.cell, self._name)
        bundle = capture(
            namespace["Bench"],
            name=self._name,
            namespace=namespace,
            cell=cell,
            store=Path(folder),  # type: ignore[arg-type]
        )
        server = Server.start().ready()
        self._stack.callback(server.stop)
        endpoint = server.deploy(bundle.path)
        endpoint.predict(self._kind.body)
        return endpoint

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


def _all_take(contenders: Sequence[Contender], load: Load) -> None:
    """From now on all are measured under this load too: traffic does not ask which number of clients suits."""
    for contender in contenders:
        contender.turns.setdefault(load, [])


def _table(contenders: Sequence[Contender], goal: Goal) -> str:
    """Most throughput first; settings that never kept the goal are marked."""
    tuned = contenders[0]
    traffic = tuned.best(goal)
    ordered = sorted(contenders, key=lambda contender: -contender.throughput(contender.best(goal)))
    head = [
        "settings",
        "at its best",
        "clients",
        "tuned is so many times faster (quartiles)",
        f"from {traffic.clients} clients",
    ]
    return table(head, [_row(contender, tuned, traffic, goal) for contender in ordered])


def _row(contender: Contender, tuned: Contender, traffic: Load, goal: Goal) -> list[str]:
    title = f"**tuned**: {contender.settings.words()}" if contender is tuned else contender.settings.words()
    title += " (default)" if contender.title == "default" else ""
    load = contender.best(goal)
    return [
        title,
        contender.words(load, goal),
        str(load.clients),
        "" if contender is tuned else _times(tuned.turns[traffic], contender.turns[load]),
        contender.words(traffic, goal) if contender.turns.get(traffic) else "",
    ]


def _times(mine: Sequence[Reading], theirs: Sequence[Reading]) -> str:
    """The newest readings, turn by turn: one of them may have begun a turn later."""
    count = min(len(mine), len(theirs))
    pairs = zip(mine[-count:], theirs[-count:], strict=True)
    ratios = [mine.throughput / max(theirs.throughput, 1e-9) for mine, theirs in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.autotune", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(KINDS), help="this handler only; may be repeated")
    parser.add_argument("--seconds", type=float, default=120.0, help="for each auto-tune at most; default: 120")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each settings; default: 10")
    parser.add_argument("--write", action="store_true", help="put the tables into README.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())

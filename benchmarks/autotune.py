"""`python -m benchmarks.autotune`: what auto-tune finds against the defaults and a coarse grid made by hand.

Four handlers, each with a goal for the 99th percentile of latency. All settings run at once, on workers of their own;
all are measured in short turns, each under all loads that may be its best: numbers of clients that wait for their
answers, or rates at which requests come whatever happens. What counts is the most within the goal.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import random
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
from nbserve.tune.proof import Side
from nbserve.verbs import Endpoint

README = Path(__file__).with_name("README.md")
CLIENTS = (1, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
BLOCK_S, WARM_S = 0.8, 0.2
# Of rates: so far apart, and measured for as long as a queue takes to grow.
RATE_STEP, RATES, OPEN_BLOCK_S = 1.2, 12, 2.0
# Times the goal: no higher load is tried. Share of the most in the first turn: loads that may be the best.
HOPELESS, ENOUGH = 1.6, 0.75
GRID = [
    Settings(workers, 0, size, "window" if delay_ms else "adaptive", delay_ms)
    for workers, size, delay_ms in itertools.product((1, 2), (8, 32), (0.0, 5.0))
]


@dataclass(frozen=True)
class Kind:
    """A handler, what it is asked, and its goal; with a `rate`, requests do not wait for each other."""

    title: str
    cell: str
    bodies: Sequence[object]
    p99_ms: float
    rate: float | None = None

    @property
    def loads(self) -> list[Load]:
        if self.rate is None:
            return [Load(clients) for clients in CLIENTS]
        return [Load(rate=round(self.rate * RATE_STEP**step)) for step in range(RATES)]

    @property
    def traffic(self) -> str:
        return f"from {self.rate:g} requests/s that come by chance" if self.rate else "from clients that wait"


def texts(count: int) -> list[list[int]]:
    """Tokens: most texts are short, some are long."""
    chance = random.Random(0)
    lengths = [min(256, 4 + int(chance.lognormvariate(3.6, 0.9))) for _ in range(count)]
    return [[chance.randrange(1, 1000) for _ in range(length)] for length in lengths]


KINDS = {
    "cheap": Kind(
        "as cheap as can be: a perceptron, 32 numbers to 10",
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
        [[0.5] * 32],
        20.0,
    ),
    "wide": Kind(
        "cheap per row: a perceptron, 256 numbers to 2,048 to 2,048 to 10, whose weights (19 MB) each batch reads once",
        """
import nbserve
import numpy as np
import torch

class Bench(nbserve.Handler):
    def initialize(self, context):
        self.model = torch.nn.Sequential(
            torch.nn.Linear(256, 2048), torch.nn.ReLU(),
            torch.nn.Linear(2048, 2048), torch.nn.ReLU(), torch.nn.Linear(2048, 10),
        ).eval()

    def preprocess(self, requests):
        return torch.from_numpy(np.stack([np.frombuffer(row, np.float32) for row in requests]))

    def postprocess(self, outputs):
        return outputs.argmax(1).tolist()
""",
        [bytes(4 * 256)],
        100.0,
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
        [[1, 2, 3]],
        100.0,
    ),
    "row": Kind(
        "heavy per row: a text encoder, texts of 8 to 256 tokens, a batch padded to its longest",
        """
import nbserve
import torch
from torch.nn.utils.rnn import pad_sequence

class Bench(nbserve.Handler):
    def initialize(self, context):
        torch.manual_seed(0)
        layer = torch.nn.TransformerEncoderLayer(192, 4, 384, batch_first=True)
        self.embed = torch.nn.Embedding(1000, 192).eval()
        self.model = torch.nn.TransformerEncoder(layer, 4, enable_nested_tensor=False).eval()

    def preprocess(self, requests):
        return pad_sequence([torch.tensor(request) for request in requests], batch_first=True)

    def inference(self, tokens):
        return self.model(self.embed(tokens), src_key_padding_mask=tokens == 0).mean(1)

    def postprocess(self, outputs):
        return outputs[:, :4].tolist()
""",
        texts(60),
        100.0,
        rate=100.0,
    ),
}


@dataclass
class Contender:
    """Settings on workers of their own, and what they did under each load that makes sense for them, turn by turn."""

    title: str
    settings: Settings
    meter: Meter
    goal: Goal
    turns: dict[Load, list[Reading]] = field(default_factory=dict)

    def survey(self, loads: Sequence[Load]) -> None:
        """One look at all loads; the turns are for those with which it may be at its best."""
        seen: dict[Load, Reading] = {}
        for load in loads:
            seen[load] = self._ask(load)
            if seen[load].is_behind or seen[load].p99_ms > HOPELESS * self.goal.p99_ms:
                break
        most = max(reading.throughput for reading in seen.values())
        self.turns = {load: [] for load, reading in seen.items() if reading.throughput > ENOUGH * most}

    def measure(self) -> None:
        for load, readings in self.turns.items():
            readings.append(self._ask(load))

    @property
    def best(self) -> Side:
        """Under the load with the most throughput within the goal, by medians; else what came nearest."""
        sides = [self.under(load) for load in self.turns]
        kept = [side for side in sides if side.keeps(self.goal)]
        return max(kept, key=lambda side: side.throughput) if kept else min(sides, key=lambda side: side.p99_ms)

    def under(self, load: Load) -> Side:
        return Side.of(load, self.turns[load])

    def each_turn(self) -> list[float]:
        """Throughput of each turn: under its best load, or of rates the highest that was kept."""
        best = self.best
        if best.load.rate is None:
            return [reading.throughput for reading in best.readings]
        return [_kept(turn, self.goal) for turn in self._turn_by_turn()]

    def _turn_by_turn(self) -> list[tuple[Reading, ...]]:
        """The readings of each turn; a load that came later has none of the first."""
        count = min(map(len, self.turns.values()))
        return list(zip(*(readings[-count:] for readings in self.turns.values()), strict=True))

    def words(self, side: Side) -> str:
        """What it did: `310/s, 40.1 ms`."""
        late = "" if side.keeps(self.goal) else " (missed)"
        return f"{number(side.throughput)}/s, {number(side.p99_ms)} ms{late}"

    def _ask(self, load: Load) -> Reading:
        seconds = BLOCK_S if load.rate is None else OPEN_BLOCK_S
        return self.meter.measure(Ask(self.settings, load, seconds, WARM_S, ""))


def _kept(turn: Sequence[Reading], goal: Goal) -> float:
    """The highest rate within the goal; a step below the lowest where that was too much."""
    rates = [reading.throughput for reading in turn if reading.keeps(goal.p99_ms)]
    return max(rates, default=min(reading.throughput for reading in turn) / RATE_STEP)


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
    goal = Goal(kind.p99_ms, kind.rate)
    with ExitStack() as stack:
        endpoint = stack.enter_context(_Served(name, kind))
        tuned = endpoint.tune(kind.p99_ms, load=kind.rate, seconds=seconds, on_progress=_tell)
        generator = stack.enter_context(LoadGenerator(recorded(endpoint)))
        settings = {"tuned": tuned.best.settings, "default": Settings()}
        settings |= {f"grid {number}": grid for number, grid in enumerate(GRID, 1) if grid != Settings()}
        contenders = [
            Contender(title, each, stack.enter_context(meter(endpoint, each, generator, goal, _tell)), goal)
            for title, each in settings.items()
        ]
        for contender in contenders:
            _tell(f"{name}: a look at {contender.settings.words()}")
            contender.survey(kind.loads)
        traffic = None
        for turn in range(rounds):
            if turn == 1:
                traffic = _all_take(contenders)
            for contender in contenders if turn % 2 == 0 else reversed(contenders):
                _tell(f"{name}: turn {turn + 1} of {rounds}, {contender.settings.words()}")
                contender.measure()
    yield f"#### {kind.title}; p99 within {kind.p99_ms:g} ms, {kind.traffic}"
    took = f"after {tuned.seconds:.0f} s and {tuned.state.measured} measurements"
    yield f"`tune` said {took}: {tuned.text.splitlines()[0]}."
    yield _table(contenders, traffic or contenders[0].best.load)


class _Served:
    """An endpoint on a server of its own, with recorded requests."""

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
        for body in self._kind.bodies:
            endpoint.predict(body)
        return endpoint

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


def _all_take(contenders: Sequence[Contender]) -> Load:
    """From now on all are measured under what suits the tuned ones best: traffic does not ask which load suits."""
    traffic = contenders[0].best.load
    for contender in contenders:
        contender.turns.setdefault(traffic, [])
    return traffic


def _table(contenders: Sequence[Contender], traffic: Load) -> str:
    """Most throughput first; settings that never kept the goal are marked."""
    tuned = contenders[0]
    ordered = sorted(contenders, key=lambda contender: -contender.best.throughput)
    head = ["settings", "at its best", "under", "tuned is so many times faster (quartiles)", f"under {traffic.words()}"]
    return table(head, [_row(contender, tuned, traffic) for contender in ordered])


def _row(contender: Contender, tuned: Contender, traffic: Load) -> list[str]:
    title = f"**tuned**: {contender.settings.words()}" if contender is tuned else contender.settings.words()
    title += " (default)" if contender.title == "default" else ""
    best = contender.best
    return [
        title,
        contender.words(best),
        best.load.words(),
        "" if contender is tuned else _times(tuned.each_turn(), contender.each_turn()),
        contender.words(contender.under(traffic)) if contender.turns.get(traffic) else "",
    ]


def _times(mine: Sequence[float], theirs: Sequence[float]) -> str:
    """The newest, turn by turn: one of them may have begun a turn later."""
    count = min(len(mine), len(theirs))
    ratios = [mine / max(theirs, 1e-9) for mine, theirs in zip(mine[-count:], theirs[-count:], strict=True)]
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

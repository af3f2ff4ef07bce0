"""The bundles nbserve is measured with, written from cells as a notebook writes them.

`python -m benchmarks.bundles FOLDER NAME EDITION` writes one and prints its path; NAME is a workload or `weights`.
It is a process of its own because capture imports torch, which the benchmark itself should not.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

WORKLOAD_CELL = """
import nbserve
import workloads

class Bench(nbserve.Handler):
    edition = {edition}

    def initialize(self, context):
        self.workload = workloads.WORKLOADS["{name}"]()

    def handle(self, requests, context):
        return self.workload.run(requests)
"""

EDITED_CELL = """
import nbserve
import workloads

class Bench(nbserve.Handler):
    edition = {edition}

    def initialize(self, context):
        self.workload = workloads.WORKLOADS["{name}"]()

    def handle(self, requests, context):
        return [self.edition] * len(self.workload.run(requests))
"""

WEIGHTS_CELL = """
import nbserve

class Bench(nbserve.Handler):
    def initialize(self, context):
        self.model = net

    def postprocess(self, outputs):
        return outputs.sum(1).tolist()
"""

WEIGHTS_LAYERS, WEIGHTS_WIDTH = 64, 2048


@functools.cache
def write(name: str, edition: int = 0) -> Path:
    """The bundle of a workload, or of the 1 GiB model; the folder goes when the benchmark ends.

    Edition 0 answers as the workload does, any other answers its own number.
    """
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-m", "benchmarks.bundles", _folder().name, name, str(edition)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=root)
    return Path(done.stdout.strip().splitlines()[-1])


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="nbb-bundles-")


def _capture(folder: Path, name: str, edition: int) -> Path:
    from nbserve.capture.capture import capture

    cell = WEIGHTS_CELL if name == "weights" else (EDITED_CELL if edition else WORKLOAD_CELL)
    cell = cell.format(name=name, edition=edition)
    namespace = {"__name__": "__main__", **({"net": _net()} if name == "weights" else {})}
    # The workloads are imported as a module of their own, so that lib/ gets that file and no more.
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    exec(compile(cell, "<benchmark cell>", "exec"), namespace)
    place, label = folder / f"{name}-{edition}", f"{name}, edition {edition}"
    return capture(namespace["Bench"], name="bench", namespace=namespace, cell=(cell, label), store=place).path


def _net() -> Any:
    import torch

    layers = [torch.nn.Linear(WEIGHTS_WIDTH, WEIGHTS_WIDTH, bias=False) for _ in range(WEIGHTS_LAYERS)]
    return torch.nn.Sequential(*layers)


if __name__ == "__main__":
    print(_capture(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))

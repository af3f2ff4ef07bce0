"""The servers that are compared: how each is started, and where it answers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import bundles
from benchmarks.peers import ROOT, python_of, require_program
from benchmarks.processes import ServerProcess
from benchmarks.servers.settings import Settings, free_port
from benchmarks.workloads import WORKLOADS, examples

START_S = 60.0


@dataclass(frozen=True)
class Kind:
    """One compared server. `window_ms` is how long its batcher waits; `command` needs the peer's interpreter."""

    name: str
    title: str
    path: str
    command: Callable[[str, Settings], list[str]]
    environment: str | None
    window_ms: float = 5.0
    variables: tuple[tuple[str, str], ...] = ()
    program: str | None = None
    can_freeze: bool = True

    def python(self) -> str:
        """Makes the environment when it is not there yet; raises peers.Missing with the reason."""
        if self.program:
            require_program(self.program)
        return python_of(self.environment) if self.environment else sys.executable

    def settings(self, workload: str, workers: int, threads: int) -> Settings:
        size = WORKLOADS[workload].max_batch_size
        return Settings(workload, free_port(), workers, threads, size, self.window_ms)

    def launch(self, settings: Settings) -> ServerProcess:
        variables = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **dict(self.variables)}
        command = self.command(self.python(), settings)
        return ServerProcess(command, {**settings.as_environment(), **variables})

    def wait(self, server: ServerProcess, settings: Settings) -> float:
        """Seconds from the start to the first right status; raises NotStarted."""
        body = examples(settings.workload, 1)[0]
        kind = WORKLOADS[settings.workload].content_type
        return server.wait_until_answers(settings.port, self.path, body, kind, START_S)


def _module(name: str) -> Callable[[str, Settings], list[str]]:
    return lambda python, settings: [python, "-m", f"benchmarks.servers.{name}"]


def _mosec(python: str, settings: Settings) -> list[str]:
    flags = ["--address", "127.0.0.1", "--port", str(settings.port), "--timeout", "60000", "--log-level", "warning"]
    return [python, "-m", "benchmarks.servers.mosec_server", *flags]


def _bentoml(python: str, settings: Settings) -> list[str]:
    command = [str(Path(python).with_name("bentoml")), "serve", "benchmarks.servers.bentoml_server:Inference"]
    return [*command, "--host", "127.0.0.1", "--port", str(settings.port)]


def _nbserve(python: str, settings: Settings) -> list[str]:
    command = [python, "-m", "nbserve", "serve", str(bundles.write(settings.workload)), "--port", str(settings.port)]
    numbers = {"workers": settings.workers, "max-batch-size": settings.max_batch_size}
    numbers["threads-per-worker"] = settings.threads
    return [*command, *(word for name, value in numbers.items() for word in (f"--{name}", str(value)))]


KINDS = {
    kind.name: kind
    for kind in (
        Kind("nbserve", "nbserve", "/predictions/bench", _nbserve, None),
        Kind("mosec", "Mosec 0.9.8 + orjson + numpy", "/inference", _mosec, "mosec"),
        Kind(
            "torchserve",
            "TorchServe 0.12",
            "/predictions/bench",
            _module("torchserve_server"),
            "torchserve",
            program="java",
        ),
        Kind("litserve", "LitServe 0.2.19", "/predict", _module("litserve_server"), "litserve"),
        Kind("bentoml", "BentoML 1.4", "/predict", _bentoml, "bentoml", can_freeze=False),
        Kind("ray", "Ray Serve 2.60", "/", _module("ray_server"), "ray", can_freeze=False),
        Kind("fastapi", "FastAPI, no batching", "/predict", _module("fastapi_server"), "fastapi"),
    )
}

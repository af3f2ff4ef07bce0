"""A Ray cluster for the tests of a module, and a bundle to run on it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

STOP_LIMIT_S = 60.0


class Cluster:
    """One head that runs no replicas, and nodes with room for one replica each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        environment = {
            **os.environ,
            "PYTHONWARNINGS": "ignore",
            "RAY_TMPDIR": str(folder),
            "RAY_USAGE_STATS_ENABLED": "0",
            # It waits half a minute, and the other tests may have both cores.
            "RAY_agent_register_timeout_ms": "120000",
        }
        self._log = (folder / "cluster.log").open("wb")
        self._child = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("cluster.py")), str(self.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        self.nodes: list[str] = []
        self.metrics_ports: list[int] = []
        self.address: str = self._answer()["address"]

    def add_node(self) -> str:
        self._ask({"do": "add"})
        return self.nodes[-1]

    def kill_node(self, node: str) -> None:
        self._ask({"do": "kill", "node": node})

    def deploy_config(self, config: dict[str, Any]) -> None:
        """What `serve deploy` asks the dashboard for, which these clusters do without."""
        self._ask({"do": "config", "config": config})

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `nbserve ray`."""
        line = [sys.executable, "-m", "nbserve", "ray", *words, f"--address={self.address}"]
        return subprocess.run(line, check=False, capture_output=True, text=True, timeout=120)

    def stop(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait(STOP_LIMIT_S)
        assert self._child.stdout is not None
        self._child.stdout.close()
        self._log.close()

    def _ask(self, command: dict[str, Any]) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(command) + "\n")
        self._child.stdin.flush()
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        assert line, f"the cluster ended:\n{Path(self._log.name).read_text()[-4000:]}"
        answer: dict[str, Any] = json.loads(line)
        self.nodes, self.metrics_ports = answer["nodes"], answer["metrics_ports"]
        return answer


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Ray puts sockets into this folder, whose paths may have some hundred characters at most.
    with tempfile.TemporaryDirectory(prefix="nb-ray-") as folder:
        cluster = Cluster(Path(folder))
        yield cluster
        cluster.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

"""Who asks a container: clients under load, Prometheus with the exported configuration, single requests."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import struct
import threading
import urllib.request
from collections import Counter
from contextlib import closing
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from nbserve.bundle.bundle import Golden
from tests.container.containers import Container

CLIENTS = 8
JSON = {"Content-Type": "application/json"}


class Load:
    """Clients that ask one request over and over, each on a kept connection; what was sent must be answered."""

    def __init__(self, place: str, golden: Golden, clients: int = CLIENTS) -> None:
        self._place = place
        self._golden = golden
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]
        self._stopping = threading.Event()
        self.statuses: Counter[int] = Counter()
        self.lost: list[str] = []

    @property
    def answered(self) -> int:
        return self.statuses.total()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self.join()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with closing(http.client.HTTPConnection(self._place, timeout=30)) as connection:
            while not self._stopping.is_set():
                try:
                    if connection.sock is None:
                        connection.connect()
                except ConnectionRefusedError:
                    # Nothing was sent, so nothing is lost.
                    return
                try:
                    connection.request("POST", "/predictions/digits", self._golden.request_body, JSON)
                    with connection.getresponse() as answer:
                        answer.read()
                    self.statuses[answer.status] += 1
                except (OSError, http.client.HTTPException) as error:
                    self.lost.append(repr(error))
                    connection.close()


def scrape_config(export: Path, target: str, folder: Path) -> Path:
    """The exported configuration of Prometheus, looking at `target`, and more often than usual."""
    text = (export / "monitoring" / "prometheus.yml").read_text()
    text = re.sub(r"scrape_interval: \w+", "scrape_interval: 1s", text)
    (folder / "prometheus.yml").write_text(re.sub(r"targets: \[.*\]", f'targets: ["{target}"]', text))
    shutil.copy(export / "monitoring" / "alerts.yml", folder)
    return folder / "prometheus.yml"


def dashboard_queries(export: Path) -> list[str]:
    """What the exported dashboard's panels ask."""
    dashboard = json.loads((export / "monitoring/grafana/dashboards/nbserve.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]


def status_of(url: str) -> int:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return int(answer.status)


def post(url: str, body: Any, check: bool = True) -> Any:
    """The decoded answer; of a refusal nothing, if that may be."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), JSON), timeout=30) as answer:
            return json.load(answer)
    except HTTPError:
        if check:
            raise
        return None


def listeners(container: Container) -> list[tuple[int, str]]:
    """Port and address of all that listens in the container's network."""
    found = []
    for line in Path("/proc", str(container.pid), "net", "tcp").read_text().splitlines()[1:]:
        local, state = itemgetter(1, 3)(line.split())
        host, _, port = local.partition(":")
        if state == "0A":
            found.append((int(port, 16), socket.inet_ntoa(struct.pack("<I", int(host, 16)))))
    return found

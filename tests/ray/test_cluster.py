"""A bundle on a real Ray cluster of several nodes: same answers, batches, errors one by one, and a node that dies."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import yaml

import nbserve
from nbserve.bundle.bundle import Bundle, Golden
from nbserve.capture.capture import capture
from nbserve.deployment import Server
from nbserve.export import rayserve
from nbserve.ray.options import Deployed
from nbserve.replay import replay
from tests.export.plans import make_plan
from tests.ray.conftest import Cluster
from tests.served import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

CELL = """\
import os
import time
import ray
import torch

class H(nbserve.Handler):
    def initialize(self, context):
        self.net = net
        self.asked = context.metrics.counter("asked_rows")

    def preprocess(self, requests):
        self.size = len(requests)
        self.asked.inc(self.size)
        return torch.tensor(requests, dtype=torch.float32)

    def inference(self, batch):
        time.sleep(0.02)
        with torch.inference_mode():
            return self.net(batch)

    def postprocess(self, outputs):
        headers = {"X-Batch": str(self.size), "X-Pid": str(os.getpid()), "X-Folder": self.context.model_dir}
        return [nbserve.Response(str(row), "application/json", headers) for row in outputs.tolist()]
"""
CLIENTS = 8
RECOVERY_LIMIT_S = 120.0


@dataclass(frozen=True)
class Running:
    url: str
    golden: list[Golden]
    bundle: Path

    def ask(self, body: Any = (1, 2, 3), **more: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/predictions/h", json=body, timeout=30, **more)

    def ask_at_once(self, bodies: list[Any]) -> list[httpx.Response]:
        with ThreadPoolExecutor(len(bodies)) as clients:
            return list(clients.map(self.ask, bodies))

    def pids(self) -> set[str]:
        """The replicas that answer; none while a node is on its way out."""
        try:
            answers = self.ask_at_once([[0, 0, 0]] * 24)
        except httpx.HTTPError:
            return set()
        return {answer.headers["x-pid"] for answer in answers if answer.status_code == 200}

    def nodes_of_bundles(self, cluster: Cluster) -> set[str]:
        """The nodes in whose folders the replicas have their bundle."""
        folders = {Path(answer.headers["x-folder"]) for answer in self.ask_at_once([[0, 0, 0]] * 24)}
        return {folder.relative_to(cluster.folder).parts[0] for folder in folders}


@pytest.fixture(scope="module")
def running(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Running:
    """Two replicas, each on a node of its own; what they were deployed from is not there any more."""
    bundle = captured(CELL, tmp_path_factory.mktemp("store"), max_batch_size=8)
    server = Server.start().ready()
    try:
        endpoint = server.deploy(bundle.path)
        for number in range(3):
            endpoint.predict([number, 2.5, -1])
        deployed = endpoint.to_ray(address=cluster.address, replicas=2, port=cluster.port)
    finally:
        server.stop()
    assert deployed == Deployed("h", "h", bundle.version, f"http://127.0.0.1:{cluster.port}/predictions/h", 2)
    kept = Path(shutil.move(bundle.path, tmp_path_factory.mktemp("kept") / "bundle"))
    return Running(f"http://127.0.0.1:{cluster.port}", Bundle.read(kept).golden(), kept)


def test_it_answers_what_was_recorded_and_each_node_has_the_bundle(cluster: Cluster, running: Running) -> None:
    assert len(running.golden) == 3
    found = replay(f"{running.url}/predictions/h", running.golden)
    found.raise_for_difference()
    assert found.checked == 3
    assert len(running.pids()) == 2
    assert len(running.nodes_of_bundles(cluster)) == 2


def test_the_routes_are_those_of_a_server(running: Running) -> None:
    model = httpx.get(f"{running.url}/v2/models/h").json()
    assert (model["name"], len(model["versions"])) == ("h", 1)
    assert running.ask(params={"q": "1"}, headers={"X-Request-Id": "mine"}).headers.get_list("x-request-id") == ["mine"]
    assert httpx.post(f"{running.url}/predictions/h/{model['versions'][0]}", json=[1, 2, 3]).status_code == 200
    assert httpx.get(f"{running.url}/ping").json() == {"status": "Healthy"}
    assert httpx.get(f"{running.url}/v2/health/ready").json() == {"ready": True}
    tensor = {"name": "input", "shape": [5, 3], "datatype": "FP32", "data": [1.0] * 15}
    inferred = httpx.post(f"{running.url}/v2/models/h/infer", json={"inputs": [tensor]}).json()
    assert inferred["outputs"][0]["shape"] == [5, 2]


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("POST", "/predictions/other", 404, "NotFound"),
        ("POST", "/predictions/h/0123", 404, "NotFound"),
        ("GET", "/predictions/h", 405, "MethodNotAllowed"),
        ("POST", "/v2/models/h/infer", 400, "BadRequest"),
    ],
)
def test_errors_have_the_bodies_of_a_server(running: Running, method: str, path: str, status: int, kind: str) -> None:
    answer = httpx.request(method, running.url + path, content=b"{}" if method == "POST" else None)
    said = answer.json()
    assert (answer.status_code, said["code"], said["type"]) == (status, status, kind)
    assert said["message"]


def test_requests_share_batches_and_a_bad_row_fails_alone(running: Running) -> None:
    answers = running.ask_at_once([[1, 2, 3]] * 31 + [[1, 2, "no number"]])
    assert Counter(answer.status_code for answer in answers) == {200: 31, 500: 1}
    assert max(int(answer.headers["x-batch"]) for answer in answers[:31]) > 1
    assert len({answer.text for answer in answers[:31]}) == 1
    assert answers[31].json()["type"] == "HandlerFailed"


def test_its_metrics_are_shown_by_the_nodes(cluster: Cluster, running: Running) -> None:
    wait_until(lambda: "ray_asked_rows" in scraped(cluster))
    shown = scraped(cluster)
    for name in ("requests_total", "request_latency_seconds_bucket", "batch_size_bucket", "stage_seconds_bucket"):
        assert f"ray_nbserve_{name}" in shown
    assert 'endpoint="h"' in shown


def test_a_node_dies_under_load_and_little_is_lost(cluster: Cluster, running: Running) -> None:
    before = running.pids()
    assert len(before) == 2
    spare = cluster.add_node()
    with load(running) as tally:
        wait_until(lambda: tally.answered > 20)
        killed_s = time.monotonic()
        cluster.kill_node(cluster.nodes[0])
        wait_until(lambda: len(running.pids()) == 2 and running.pids() != before, RECOVERY_LIMIT_S)
        recovered_s = time.monotonic() - killed_s
    assert spare in cluster.nodes
    lost = [(round(at - killed_s, 1), said) for at, said in tally.lost]
    print(
        f"a node of 2 killed under load from {CLIENTS} clients: {len(lost)} of {tally.asked} requests lost; "
        f"two replicas again after {recovered_s:.1f} s; lost, by seconds after it: {lost}"
    )
    assert tally.answered > 20
    # Each client can have had one request at the replica that died, and one more before the proxy knew.
    assert len(tally.lost) <= 2 * CLIENTS
    replay(f"{running.url}/predictions/h", running.golden).raise_for_difference()


def test_the_exported_files_deploy_and_replicas_go_on_with_new_settings(
    cluster: Cluster, running: Running, tmp_path: Path
) -> None:
    config = exported(running.bundle, tmp_path)
    cluster.deploy_config(config)
    wait_until(lambda: len(running.pids()) == 2)
    assert len(running.nodes_of_bundles(cluster)) == 2
    replay(f"{running.url}/predictions/h", running.golden).raise_for_difference()
    before = running.pids()
    (deployment,) = config["applications"][0]["deployments"]
    deployment["user_config"] |= {"max_batch_size": 1, "response_timeout_s": 5.0}
    deployment |= {"max_ongoing_requests": 1, "max_queued_requests": 1}
    cluster.deploy_config(config)
    wait_until(lambda: 503 in {answer.status_code for answer in running.ask_at_once([[1, 2, 3]] * 24)})
    answers = running.ask_at_once([[1, 2, 3]] * 24)
    assert {answer.headers["x-batch"] for answer in answers if answer.status_code == 200} == {"1"}
    assert {answer.headers["x-pid"] for answer in answers if answer.status_code == 200} <= before


def test_what_does_not_start_says_why_and_leaves_nothing(cluster: Cluster, running: Running, tmp_path: Path) -> None:
    cell = CELL.replace("self.net = net", "self.net = context.net")
    bundle = captured(cell, tmp_path, start_timeout_s=60.0)
    # All CPUs are taken.
    words = ["--name=broken", "--route-prefix=/broken", "--replicas=1", "--cpus=0"]
    done = cluster.command("deploy", str(bundle.path), *words)
    assert done.returncode == 1
    assert "nbserve: broken does not start on Ray" in done.stderr
    assert "AttributeError: 'Context' object has no attribute 'net'" in done.stderr
    assert "self.net = context.net" in done.stderr
    again = cluster.command("delete", "broken")
    assert again.returncode == 1
    assert again.stderr == "nbserve: no application on this cluster is named 'broken'; there is: h\n"


def test_an_application_is_taken_off(cluster: Cluster, running: Running) -> None:
    assert cluster.command("delete", "h").returncode == 0
    wait_until(lambda: not running.pids())


def captured(cell: str, store: Path, **settings: Any) -> Bundle:
    torch.manual_seed(0)
    namespace: dict[str, Any] = {"__name__": "__main__", "nbserve": nbserve, "net": torch.nn.Linear(3, 2).eval()}
    exec(compile("\n" + cell, "<cell h>", "exec"), namespace)
    text = f"%%serve h\n{cell}"
    return capture(
        namespace["H"], name="h", namespace=namespace, settings=settings, cell=(text, "test.ipynb, cell 1"), store=store
    )


def exported(bundle: Path, folder: Path) -> dict[str, Any]:
    """The files of an export in a zip that all nodes reach, and the config that names it."""
    found = Bundle.read(bundle)
    plan = make_plan(found.name, version=found.version, workers=2, max_batch_size=8)
    for name, text in rayserve.files(plan).items():
        (folder / name).write_text(text)
    shutil.copytree(bundle, folder / "bundle")
    archive = shutil.make_archive(str(folder.parent / "exported"), "zip", folder.parent, folder.name)
    config: dict[str, Any] = yaml.safe_load((folder / "ray_serve.yaml").read_text())
    for key in ("http_options", "proxy_location"):
        del config[key]
    config["applications"][0]["runtime_env"] = {"working_dir": f"file://{archive}"}
    return config


@dataclass
class Tally:
    answered: int = 0
    lost: list[tuple[float, str]] = field(default_factory=list)

    @property
    def asked(self) -> int:
        return self.answered + len(self.lost)


@contextmanager
def load(running: Running) -> Iterator[Tally]:
    """Clients that ask again and again; what is not answered with 200 is lost, and when that was is noted."""
    tally, is_over = Tally(), threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            try:
                answer = running.ask()
                said = f"{answer.status_code} {answer.text[:60]}"
            except httpx.HTTPError as error:
                said = type(error).__name__
            if said.startswith("200"):
                tally.answered += 1
            else:
                tally.lost.append((time.monotonic(), said))

    with ThreadPoolExecutor(CLIENTS) as clients:
        for _ in range(CLIENTS):
            clients.submit(ask)
        try:
            yield tally
        finally:
            is_over.set()


def scraped(cluster: Cluster) -> str:
    return "".join(httpx.get(f"http://127.0.0.1:{port}/metrics").text for port in cluster.metrics_ports)

"""What is exported for Prometheus, tried with the real one: alerts on made-up numbers, dashboard on nbserve."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from nbserve.bundle.bundle import Bundle
from nbserve.export import kubernetes, monitoring
from nbserve.export.plan import METRICS_PORT, Plan
from tests.export.plans import make_plan
from tests.export.test_monitoring import queries

ALERTS = {"Down", "NoReadyWorker", "WorkersRestart", "QueueFills", "Refuses", "Errors", "Slow"}


def installed(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(f"{program} is missing: install the Debian package prometheus")
        pytest.skip(f"{program} is missing")
    return path


def write_monitoring(plan: Plan, folder: Path) -> Path:
    for path, text in monitoring.files(plan).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder / "monitoring"


def promtool(*arguments: str) -> str:
    command = [installed("promtool"), *arguments]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_promtool_takes_the_configuration_and_the_alerts(tmp_path: Path) -> None:
    folder = write_monitoring(make_plan(), tmp_path)
    assert f"{len(ALERTS)} rules found" in promtool("check", "config", str(folder / "prometheus.yml"))
    rules = yaml.safe_load((folder / "alerts.yml").read_text())["groups"][0]["rules"]
    assert {rule["alert"].removeprefix("Nbserve") for rule in rules} == ALERTS


SELECTED = 'endpoint="digits",instance="a:8082"'
# What Prometheus would have scraped, a value a minute, and which alert must ring after ten of them.
SERIES = {
    "Down": {'nbserve_endpoint_info{endpoint="others",instance="a:8082"}': "1x10"},
    "NoReadyWorker": {
        f'nbserve_workers{{{SELECTED},state="READY"}}': "0x10",
        f'nbserve_workers{{{SELECTED},state="BUSY"}}': "0x10",
        f'nbserve_workers{{{SELECTED},state="DEAD"}}': "2x10",
    },
    "WorkersRestart": {f"nbserve_worker_restarts_total{{{SELECTED}}}": "0+1x10"},
    "QueueFills": {f"nbserve_queue_length{{{SELECTED}}}": "900x10"},
    "Refuses": {f'nbserve_requests_total{{{SELECTED},status="503"}}': "0+1x10"},
    "Errors": {
        f'nbserve_requests_total{{{SELECTED},status="200"}}': "0+90x10",
        f'nbserve_requests_total{{{SELECTED},status="500"}}': "0+10x10",
    },
    "Slow": {
        f'nbserve_request_latency_seconds_bucket{{{SELECTED},le="30.0"}}': "0+1x10",
        f'nbserve_request_latency_seconds_bucket{{{SELECTED},le="60.0"}}': "0+9x10",
        f'nbserve_request_latency_seconds_bucket{{{SELECTED},le="+Inf"}}': "0+9x10",
    },
}
SERVED = {f"nbserve_endpoint_info{{{SELECTED}}}": "1x10"}
HEALTHY = {
    f'nbserve_workers{{{SELECTED},state="READY"}}': "0 1 0 1 0 1 0 1 0 1 0",
    f'nbserve_workers{{{SELECTED},state="BUSY"}}': "2 1 2 1 2 1 2 1 2 1 2",
    f"nbserve_worker_restarts_total{{{SELECTED}}}": "0 0 1 1 1 1 1 1 1 1 1",
    f"nbserve_queue_length{{{SELECTED}}}": "0 900 0 10 900 0 0 0 0 0 0",
    f'nbserve_requests_total{{{SELECTED},status="200"}}': "0+97x10",
    f'nbserve_requests_total{{{SELECTED},status="400"}}': "0+90x10",
    f'nbserve_requests_total{{{SELECTED},status="500"}}': "0+3x10",
    f'nbserve_request_latency_seconds_bucket{{{SELECTED},le="1.0"}}': "0+100x10",
    f'nbserve_request_latency_seconds_bucket{{{SELECTED},le="+Inf"}}': "0+100x10",
}


@pytest.mark.parametrize("rings", [*sorted(ALERTS), None])
def test_an_alert_rings_for_what_it_is_for_and_for_nothing_else(rings: str | None, tmp_path: Path) -> None:
    folder = write_monitoring(make_plan(workers=2), tmp_path)
    rules = yaml.safe_load((folder / "alerts.yml").read_text())["groups"][0]["rules"]
    series = {**({} if rings == "Down" else SERVED), **(SERIES[rings] if rings else HEALTHY)}
    summaries = {rule["alert"]: rule for rule in rules}
    expected = []
    for alert in (f"Nbserve{name}" for name in sorted(ALERTS)):
        # promtool compares texts too: only the alert's name is asked for here.
        ringing = f'ALERTS{{alertname="{alert}",alertstate="firing"}}'
        samples = [{"labels": "{}", "value": 1}] if alert == f"Nbserve{rings}" else []
        expected.append({"expr": f"max({ringing})", "eval_time": "10m", "exp_samples": samples})
    assert all(rule["annotations"]["summary"] for rule in summaries.values())
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": expected,
    }
    path = folder / "test.yml"
    path.write_text(yaml.safe_dump({"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": [test]}))
    promtool("test", "rules", str(path))


CELL = """
class H(nbserve.Handler):
    def handle(self, requests, context):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        if request == "bad":
            raise nbserve.BadRequest("no")
        if request == "broken":
            raise RuntimeError("broken")
        return request
"""


@pytest.mark.process
def test_every_query_of_the_dashboard_finds_data(
    make_bundle: Callable[..., Bundle], wait_until: Callable[..., None], tmp_path: Path
) -> None:
    program = installed("prometheus")
    bundle = make_bundle(CELL, "digits", workers=2)
    port, metrics_port, own_port = free_ports(3)
    url, api = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{own_port}/api/v1"
    config = prometheus_config(make_plan(workers=2), tmp_path, metrics_port)
    asked = {query: asking(query) for query in [*queries(), adapter_query()]}
    with (
        running(tmp_path, *serving(bundle, port, metrics_port)),
        running(tmp_path, *scraping(program, config, own_port)),
    ):
        # The first time that the server says it is ready, it is: a load balancer takes it at its word.
        wait_until(lambda: status_of(f"{url}/v2/health/ready") == 200)
        assert predict(url, 1) == 200
        missing, rounds = set(asked), count()

        def all_found() -> bool:
            # A request of each kind over and over: a rate needs two scrapes that differ.
            statuses = [predict(url, body) for body in (next(rounds), "bad", "broken")]
            assert statuses == [200, 400, 500]
            missing.difference_update([query for query in missing if has_data(api, asked[query])])
            return not missing

        try:
            wait_until(all_found)
        except AssertionError as error:
            raise AssertionError(f"{error}; no data for {missing}") from error
        statuses = result_of(api, 'sum by (status) (nbserve_requests_total{endpoint="digits"})')
        assert {sample["metric"]["status"] for sample in statuses} == {"200", "400", "500"}
        wait_until(lambda: set(rule_health(api).values()) == {"ok"})
        assert {name.removeprefix("Nbserve") for name in rule_health(api)} == ALERTS


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def prometheus_config(plan: Plan, folder: Path, metrics_port: int) -> Path:
    """The exported one, but for where the endpoint is and how long a test can wait."""
    path = write_monitoring(plan, folder) / "prometheus.yml"
    config = yaml.safe_load(path.read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    [target] = config["scrape_configs"][0]["static_configs"]
    assert target["targets"] == [f"endpoint:{METRICS_PORT}"]
    # What the operator's PodMonitor, or the annotations, would add.
    target |= {"targets": [f"127.0.0.1:{metrics_port}"], "labels": {"namespace": "models", "pod": "digits-0"}}
    path.write_text(yaml.safe_dump(config))
    return path


def adapter_query() -> str:
    """As prometheus-adapter fills the rule that hpa.yaml scales on."""
    rules = yaml.safe_load(kubernetes.files(make_plan())["k8s/monitoring/prometheus-adapter.yaml"])["rules"]
    query: str = rules["custom"][0]["metricsQuery"].replace("<<.Series>>", "nbserve_queue_length")
    return query.replace("<<.LabelMatchers>>", 'namespace="models",pod=~"digits-0"').replace("<<.GroupBy>>", "pod")


def asking(query: str) -> str:
    """As Grafana asks with `All` endpoints chosen."""
    return query.replace("$__rate_interval", "4s").replace("$endpoint", ".*")


def serving(bundle: Bundle, port: int, metrics_port: int) -> tuple[list[str], dict[str, str]]:
    command = [sys.executable, "-m", "nbserve", "serve", str(bundle.path), "--port", str(port)]
    return command, {"NBSERVE_METRICS_PORT": str(metrics_port)}


def scraping(program: str, config: Path, port: int) -> tuple[list[str], dict[str, str]]:
    data, address = config.parent / "data", f"127.0.0.1:{port}"
    options = [f"--config.file={config}", f"--storage.tsdb.path={data}", f"--web.listen-address={address}"]
    return [program, *options], {}


@contextmanager
def running(folder: Path, command: list[str], environ: dict[str, str]) -> Iterator[None]:
    log_path = folder / f"{Path(command[0]).name}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environ})
        try:
            yield
            assert process.poll() is None, log_path.read_text()
        except BaseException:
            print(log_path.read_text()[-4000:])
            raise
        finally:
            process.terminate()
            assert process.wait(60) == 0, log_path.read_text()


def status_of(url: str, body: bytes | None = None) -> int:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (ConnectionError, urllib.error.URLError):
        return 0


def predict(url: str, body: Any) -> int:
    return status_of(f"{url}/predictions/digits", json.dumps(body).encode())


def result_of(api: str, query: str) -> list[Any]:
    data = ask(f"{api}/query?{urllib.parse.urlencode({'query': query})}")
    return list(data["result"]) if data else []


def has_data(api: str, query: str) -> bool:
    return any(math.isfinite(float(sample["value"][1])) for sample in result_of(api, query))


def rule_health(api: str) -> dict[str, str]:
    data = ask(f"{api}/rules") or {"groups": []}
    return {rule["name"]: rule["health"] for group in data["groups"] for rule in group["rules"]}


def ask(url: str) -> Any:
    """What Prometheus says; None while it does not listen. A query that it does not understand fails."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.loads(answer.read())["data"]
    except urllib.error.HTTPError as error:
        if error.code != 503:
            raise AssertionError(f"{url}: {error.read().decode()}") from error
        return None
    except (ConnectionError, urllib.error.URLError):
        return None

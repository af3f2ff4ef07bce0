"""The files of an export for Ray Serve, and the config that `nbserve ray deploy --build-config-only` prints."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from nbserve.bundle.bundle import Bundle
from nbserve.cli import main
from nbserve.export import rayserve
from tests.export.plans import make_plan

CELL = "class H(nbserve.Handler):\n    def handle(self, requests, context):\n        return requests\n"


CHECK = """\
import sys, yaml
from ray.serve.schema import ServeDeploySchema
for text in sys.stdin.read().split("\\f"):
    ServeDeploySchema(**yaml.safe_load(text))
"""


def checked(*texts: str) -> list[dict[str, Any]]:
    """The configs, if Ray takes them; asked in a process of its own, as importing Ray warns."""
    line = [sys.executable, "-W", "ignore", "-c", CHECK]
    done = subprocess.run(line, check=False, input="\f".join(texts), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [yaml.safe_load(text) for text in texts]


@pytest.mark.process
def test_ray_takes_what_is_exported() -> None:
    plans = [
        make_plan("digits", workers=3, threads_per_worker=2, port=9000),
        make_plan("on", is_gpu=True, max_batch_delay_ms=5.0, response_timeout_s=0.5),
        make_plan("1.5", device="cuda:1", is_gpu=True, isolate_errors=False),
    ]
    first, second, third = checked(*(rayserve.files(plan)["ray_serve.yaml"] for plan in plans))
    assert first["http_options"] == {"host": "0.0.0.0", "port": 9000}
    (digits,) = first["applications"]
    assert (digits["name"], digits["import_path"]) == ("digits", "ray_app:app")
    (deployment,) = digits["deployments"]
    assert (deployment["num_replicas"], deployment["ray_actor_options"]) == (3, {"num_cpus": 2})
    (deployment,) = second["applications"][0]["deployments"]
    assert deployment["name"] == "on"
    assert deployment["ray_actor_options"] == {"num_cpus": 1, "num_gpus": 1}
    assert deployment["user_config"]["policy"] == "window"
    assert third["applications"][0]["name"] == "1.5"
    assert third["applications"][0]["deployments"][0]["user_config"]["isolate_errors"] is False


def test_the_application_file_is_python_and_names_the_bundle_beside_it() -> None:
    text = rayserve.files(make_plan())["ray_app.py"]
    ast.parse(text)
    assert 'Path(__file__).parent / "bundle"' in text


def test_the_same_plan_makes_the_same_files() -> None:
    assert rayserve.files(make_plan()) == rayserve.files(make_plan())


@pytest.mark.process
def test_a_config_for_a_bundle_in_its_place(
    make_bundle: Callable[..., Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(CELL, "echo", max_batch_size=4)
    words = ["--max-replicas=3", "--dtype=float16", "--name=one", "--route-prefix=/one", "--port=8001"]
    assert main(["ray", "deploy", str(bundle.path), "--build-config-only", *words]) == 0
    (config,) = checked(capsys.readouterr().out)
    (application,) = config["applications"]
    assert application["import_path"] == "nbserve.ray:from_args"
    assert application["args"] == {"bundle": str(bundle.path), "settings": {"dtype": "float16"}}
    assert (application["name"], application["route_prefix"]) == ("one", "/one")
    (deployment,) = application["deployments"]
    assert deployment["autoscaling_config"] == {"min_replicas": 1, "max_replicas": 3, "target_ongoing_requests": 4}
    assert "num_replicas" not in deployment


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--replicas=2", "--max-replicas=3"], "either a number of replicas or autoscaling, not both"),
        (["--dtype=float31"], "dtype is 'float31'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_ray_is_asked(
    make_bundle: Callable[..., Bundle], capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["ray", "deploy", str(make_bundle(CELL).path), "--build-config-only", *words]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.process
def test_without_ray_it_says_what_to_install(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ModuleNotFoundError(\"No module named 'ray'\", name='ray')\n")
    line = [sys.executable, "-m", "nbserve", "ray", "deploy", str(make_bundle(CELL).path)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(line, check=False, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "nbserve: Ray is not installed here: pip install 'nbserve-torch[ray]'\n"


@pytest.mark.process
def test_the_command_line_does_not_import_ray() -> None:
    code = "import sys, nbserve, nbserve.cli, nbserve.ray, nbserve.cli.ray; sys.exit('ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.process
def test_a_cluster_that_is_not_there_is_said_at_once(make_bundle: Callable[..., Bundle]) -> None:
    line = [sys.executable, "-m", "nbserve", "ray", "deploy", str(make_bundle(CELL).path), "--address=127.0.0.9:1"]
    done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("nbserve: no Ray cluster answers at '127.0.0.9:1' (127.0.0.9:1: Connection refused)")

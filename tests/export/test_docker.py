"""The Dockerfile: clean for hadolint, its layers in order, nothing run and nothing secret in the last stage."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nbserve.export import docker
from nbserve.export.plan import Plan
from tests.export.handmade import plan

FULL = (
    "app.py",
    "cache/inductor/a.so",
    "files/words.txt",
    "lib/helpers.py",
    "model/manifest.json",
    "model/net.safetensors",
    "model/objects.pkl",
    "model/table.npy",
    "nbserve.toml",
    "requirements.txt",
)
VARIANTS: list[dict[str, Any]] = [
    {},
    {"wheels": ("a-1-py3-none-any.whl",), "bundle_files": FULL, "has_cache": True, "settings": {"compile": "inductor"}},
    {"is_gpu": True, "index_url": "", "settings": {"device": "cuda"}},
    {"base": docker.base("3.11", has_compiler=True), "port": 80, "settings": {"compile": "inductor"}},
    {"base": "registry.example:5000/python@sha256:0123"},
]


def _dockerfile(made: Plan) -> str:
    return docker.files(made)["Dockerfile"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_hadolint_is_clean(variant: dict[str, Any]) -> None:
    linter = Path(sys.executable).with_name("hadolint")
    command = [str(linter), "--no-color", "-"]
    told = subprocess.run(command, input=_dockerfile(plan(**variant)), capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, "")


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_last_stage_runs_nothing_and_is_no_root(variant: dict[str, Any]) -> None:
    text = _dockerfile(plan(**variant))
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)
    last = stages[-1]
    assert len(stages) == 3
    assert not re.search(r"^\s*(RUN|ADD|SHELL)\b", last, re.MULTILINE)
    assert "pip" not in last
    assert "USER ${UID}" in last
    assert 'ENTRYPOINT ["nbserve"]\nCMD ["serve"]' in last
    # What buildah 1.28 does not know, or what an offline builder would fetch.
    assert not re.search(r"COPY --(link|chmod=[^0])|<<|^# *syntax", text, re.MULTILINE)
    assert "$" not in re.sub(r"\$\{?(BASE|UID|PATH|TORCH_INDEX)\b", "", text)
    assert not re.search(r"[ \t]$|\n\n\n", text, re.MULTILINE)


def test_layers_go_from_what_changes_least_to_what_changes_most() -> None:
    copied = re.findall(r"^COPY (.*)$", _dockerfile(plan(bundle_files=FULL)), re.MULTILINE)
    assert [line.rpartition(" ")[0] for line in copied] == [
        "requirements.lock",
        "--from=environment /opt/nbserve/venv",
        "bundle/model/*.npy bundle/model/*.pkl bundle/model/*.safetensors",
        "bundle/files",
        "bundle/cache",
        "bundle/lib",
        "bundle/model/manifest.json",
        "bundle/app.py bundle/nbserve.toml bundle/requirements.txt",
    ]


def test_each_file_of_the_bundle_is_in_one_layer() -> None:
    copied = re.findall(r"^COPY (bundle.*) (\S+)$", _dockerfile(plan(bundle_files=FULL)), re.MULTILINE)
    places = [
        f"{target.rstrip('/')}/{file.removeprefix(source) if file != source else Path(file).name}".replace("//", "/")
        for sources, target in copied
        for source in sources.split()
        for file in (f"bundle/{name}" for name in FULL)
        if Path(file).match(source) or file.startswith(f"{source}/")
    ]
    assert len(places) == len(FULL)


def test_a_gpu_and_a_port_are_what_the_image_says() -> None:
    text = _dockerfile(plan(is_gpu=True, port=80, index_url="https://download.pytorch.org/whl/cu130"))
    assert "NVIDIA_VISIBLE_DEVICES=all" in text
    assert "NBSERVE_PORT=80 " in text
    assert "EXPOSE 80 8082" in text
    assert "ARG TORCH_INDEX=https://download.pytorch.org/whl/cu130\n" in text
    assert "NVIDIA" not in _dockerfile(plan())


def test_only_what_the_image_is_made_of_is_sent_to_the_builder() -> None:
    rules = docker.files(plan())[".dockerignore"].splitlines()
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    assert rules[1] == "*"
    assert allowed == {"requirements.lock", "wheels", "bundle"}
    assert "bundle/golden.jsonl" in rules

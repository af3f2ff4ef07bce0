"""The README of an export: its three commands, and nothing that is not so."""

from __future__ import annotations

from typing import Any

import pytest

from nbserve.export import docker, readme
from tests.export.handmade import plan

VARIANTS: list[dict[str, Any]] = [
    {},
    {"wheels": ("a-1-py3-none-any.whl",), "is_gpu": True, "golden_count": 1, "settings": {"workers": 3}},
    {"has_cache": True, "golden_count": 2, "settings": {"compile": "inductor", "channels_last": True}},
    {"base": docker.base("3.11", has_compiler=True), "index_url": "", "settings": {"compile": "inductor"}},
]


def _text(**fields: Any) -> str:
    return readme.files(plan(**fields))["README.md"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_renders_whole(variant: dict[str, Any]) -> None:
    text = _text(**variant)
    assert "$" not in text.replace("$PWD", "")
    assert "\n\n\n" not in text
    assert not any(line.startswith("?") for line in text.splitlines())
    assert max(map(len, text.splitlines())) < 200


def test_the_commands_build_run_and_verify() -> None:
    build, run, verify = readme.commands(plan(is_gpu=True, port=80), "out dir")
    assert build == "docker build -t digits:3f9c2a 'out dir'"
    assert (
        "--read-only --tmpfs /tmp --cap-drop ALL --gpus all -p 127.0.0.1:80:80 -p 127.0.0.1:8082:8082 digits:3f9c2a"
        in run
    )
    assert verify == "nbserve verify http://127.0.0.1:80/predictions/digits 'out dir/golden.jsonl' --wait 60"
    assert readme.commands(plan({"dtype": "bfloat16"}))[2].endswith("golden.jsonl --dtype bfloat16 --wait 60")
    assert readme.commands(plan(ignore=("$.id",)))[2].endswith("golden.jsonl --ignore '$.id' --wait 60")
    assert all(command in _text() for command in readme.commands(plan()))
    assert "--gpus" not in _text()
    assert "asks it the 3 requests of `golden.jsonl`" in _text().replace("\n", " ")


def test_without_requests_there_is_nothing_to_verify() -> None:
    assert len(readme.commands(plan(golden_count=0))) == 2
    assert "nbserve verify" not in _text(golden_count=0)


def test_what_is_compiled_is_loaded_from_a_folder_that_allows_it() -> None:
    assert "--tmpfs /tmp:exec " in readme.commands(plan({"compile": "inductor"}))[1]
    assert "--tmpfs /tmp " in readme.commands(plan())[1]


def test_it_lists_the_settings_that_were_tuned() -> None:
    text = _text(settings={"workers": 3, "isolate_errors": False, "max_batch_delay_ms": 5.0, "policy": "window"})
    for line in ("| `NBSERVE_WORKERS` | 3 |", "| `NBSERVE_ISOLATE_ERRORS` | false |", "| `NBSERVE_POLICY` | window |"):
        assert line in text
    assert "NBSERVE_COMPILE" not in text


def test_a_compiled_handler_says_where_its_compiler_is() -> None:
    assert "Compiled by" not in _text()
    cached = _text(has_cache=True, settings={"compile": "inductor"})
    assert "`bundle/cache/` holds what was compiled" in cached
    assert "--build-arg BASE=docker.io/library/python:3.11-slim-bookworm" in cached
    assert '-v "$PWD/golden.jsonl:/opt/nbserve/bundle/golden.jsonl:ro"' in cached
    assert "golden.jsonl:ro" not in _text(golden_count=0, settings={"compile": "inductor"})
    assert "builds upon `docker.io/library/python:3.11-bookworm`" in _text(**VARIANTS[3]).replace("\n", " ")

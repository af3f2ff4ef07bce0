"""What of a bundle goes to the nodes, and how a deployment is asked for from a kernel. Pure."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbserve.bundle.bundle import Bundle
from nbserve.cli import main
from nbserve.errors import RayError
from nbserve.ray import launch as launching
from nbserve.ray import package
from nbserve.ray.options import Deployed, RayOptions

CELL = "class H(nbserve.Handler):\n    def handle(self, requests, context):\n        return requests\n"


def test_the_zip_is_the_bundle_without_settings_and_requests(
    make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = make_bundle(CELL, max_batch_size=4)
    bundle.record(b"1", "application/json", 200, b"1", "application/json")
    (bundle.path / "__pycache__").mkdir()
    (bundle.path / "__pycache__" / "app.pyc").touch()
    package.write(bundle, tmp_path / "h.zip", with_golden=False)
    with zipfile.ZipFile(tmp_path / "h.zip") as archive:
        archive.extractall(tmp_path)
    taken = Bundle.read(tmp_path / package.PLACE)
    assert (taken.version, taken.settings, taken.golden()) == (bundle.version, {}, [])
    assert not (taken.path / "__pycache__").exists()
    taken.check()


def test_recorded_requests_go_along_where_they_warm_up(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    bundle = make_bundle(CELL)
    bundle.record(b"1", "application/json", 200, b"1", "application/json")
    package.write(bundle, tmp_path / "h.zip", with_golden=True)
    with zipfile.ZipFile(tmp_path / "h.zip") as archive:
        archive.extractall(tmp_path)
    assert len(Bundle.read(tmp_path / package.PLACE).golden()) == 1
    assert package.size_of(bundle, True) > package.size_of(bundle, False)


def test_the_same_bundle_makes_the_same_zip_whatever_its_settings(
    make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = make_bundle(CELL)
    package.write(bundle, tmp_path / "one.zip", with_golden=False)
    package.write(bundle.with_settings({"max_batch_size": 7}), tmp_path / "two.zip", with_golden=False)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A Python that runs this text in place of nbserve."""
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\nimport sys\n{text}")
    python.chmod(0o755)
    monkeypatch.setattr(launching.sys, "executable", str(python))


def test_a_kernel_hears_of_progress_and_gets_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(
        tmp_path,
        monkeypatch,
        "print('waiting for a node', file=sys.stderr)\n"
        'print(\'{"name": "n", "endpoint": "h", "version": "v", "url": "u", "replicas": 2}\')\n',
    )
    heard: list[str] = []
    assert launching.launch(Path("b"), RayOptions(), heard.append) == Deployed("n", "h", "v", "u", 2)
    assert heard == ["waiting for a node"]


def test_a_kernel_is_told_why_it_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, "print('one', file=sys.stderr)\nsys.exit('nbserve: no cluster\\nstart one')\n")
    with pytest.raises(RayError) as failed:
        launching.launch(Path("b"), RayOptions(), lambda text: None)
    assert str(failed.value) == "no cluster\nstart one"


def test_the_command_line_says_the_same_options(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("nbserve.export.rayserve.config_text", lambda bundle, options: asked.append(options) or "")
    options = RayOptions(
        address="h:1",
        name="n",
        route_prefix="/p",
        min_replicas=1,
        max_replicas=3,
        cpus=0.5,
        gpus=1.0,
        port=81,
        in_place=True,
        settings={"dtype": "bfloat16", "isolate_errors": False, "max_batch_size": 3},
    )
    main(["ray", "deploy", "b", "--build-config-only", *launching._words(options)])
    main(["ray", "deploy", "b", "--build-config-only", *launching._words(RayOptions(replicas=2))])
    assert asked == [options, RayOptions(replicas=2)]


def test_it_is_said_in_words_what_runs() -> None:
    assert str(Deployed("n", "h", "v", "http://u", 1)) == "h v runs on Ray: 1 replica, predictions at http://u"

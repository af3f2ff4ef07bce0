"""The quickstart notebook as an image, built once for all tests of this folder, and containers of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nbserve.bundle.bundle import Golden, read_golden
from tests.container import standin
from tests.container.containers import Container, Engine

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "quickstart.ipynb"
TAG = "localhost/nbserve-test-digits:1"
BUILD_LIMIT_S = 900


@dataclass(frozen=True)
class Shipped:
    """An export, and the image that was built from it."""

    folder: Path
    image: str
    seconds: float
    progress: tuple[str, ...]
    exported: dict[str, Any]

    @property
    def golden(self) -> list[Golden]:
        return read_golden(self.folder / "golden.jsonl")


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """podman with the base image, or a skip that says what is missing; CI must have it."""
    try:
        engine = Engine(standin.prepare(lambda text: print(text, file=sys.stderr)))
    except standin.NotHere as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no image can be built here: {error}")
    kept = engine.images()
    yield engine
    engine("rmi", "--force", TAG, check=False)
    # What the first stage was made of has no name, and nobody above it any more.
    engine("image", "prune", "--force", limit_s=BUILD_LIMIT_S)
    assert engine.images() <= kept, "the test run left images behind"
    assert engine.left() == [], "the test run left containers behind"


@pytest.fixture(scope="session")
def shipped(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    """`nbserve export quickstart.ipynb DIR --build TAG`, as a person would have it."""
    folder = tmp_path_factory.mktemp("shipped") / "digits"
    began = time.monotonic()
    said = exported(engine, folder, "--build", TAG)
    return Shipped(folder, TAG, time.monotonic() - began, tuple(said[:-1]), json.loads(said[-1])["exports"][0])


def exported(engine: Engine, folder: Path, *options: str) -> list[str]:
    """The lines of JSON that an export of the notebook says."""
    command = [sys.executable, "-m", "nbserve", "export", str(NOTEBOOK), str(folder), "--json", *options]
    done = subprocess.run(
        command,
        env={**engine.environment, "NBSERVE_BUILDER": "buildah"},
        capture_output=True,
        text=True,
        timeout=BUILD_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout.splitlines()


@pytest.fixture
def run(engine: Engine, shipped: Shipped) -> Iterator[Callable[..., Container]]:
    """Start a container of the image; it is gone after the test."""
    with ExitStack() as stack:

        def start(*words: str, **options: Any) -> Container:
            container = Container(engine, shipped.image, words, **options)
            stack.callback(container.remove)
            return container

        yield start

"""The proof before shipping: the exported bundle, started as in a container, answers as the notebook did."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from nbserve.bundle.bundle import Bundle, Golden
from nbserve.errors import ExportError, GoldenMismatch
from nbserve.export import cleanroom, proof
from nbserve.export.proof import prove
from nbserve.replay import Replay

JSON = "application/json"
MakeBundle = Callable[..., Bundle]


def pair(request: Any, answer: Any) -> Golden:
    return Golden(json.dumps(request).encode(), JSON, 200, json.dumps(answer).encode(), JSON)


@pytest.fixture
def proofs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where proofs have their folders; afterwards they and their processes are gone."""
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []
    marked = [process for process in psutil.process_iter() if str(folder) in str(cleanroom._environment_of(process))]
    assert marked == []


def listing(bundle: Bundle) -> list[Path]:
    return sorted(bundle.path.rglob("*"))


PROBE = """
import os
import sys
from pathlib import Path

class H(nbserve.Handler):
    def handle(self, requests, context):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        if request == "variables":
            return sorted(name for name in os.environ if name in ("PYTHONPATH", "SECRET") or "NBSERVE_" in name)
        if request == "folders":
            return [os.listdir("."), os.listdir(Path.home())]
        return request * 2
"""


@pytest.mark.process
def test_it_answers_the_same_with_nothing_of_the_users_around(
    make_bundle: MakeBundle, proofs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(PROBE, workers=3)
    before = listing(bundle)
    monkeypatch.chdir(tmp_path)
    for name in ("NBSERVE_WORKERS", "PYTHONPATH", "SECRET"):
        monkeypatch.setenv(name, "9")
    said: list[str] = []
    pairs = [pair(2, 4), pair("variables", ["NBSERVE_RUNTIME_DIR"]), pair("folders", [[], []])]
    # As relative as a user may give it.
    assert prove(Path(os.path.relpath(bundle.path)), pairs, said.append) == 3
    assert said[0] == "starting h in a clean process with 2 of its 3 workers"
    assert said[-1] == "it answers all 3 recorded requests as the notebook did"
    assert listing(bundle) == before


LOCAL = """
import importlib

class H(nbserve.Handler):
    def initialize(self, context):
        self.helper = importlib.import_module("nbserve_test_" + "helper")
"""


@pytest.mark.process
def test_what_only_the_notebook_finds_stops_the_export_at_the_cells_line(
    make_bundle: MakeBundle, proofs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nbserve_test_helper.py").write_text("ANSWER = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ExportError) as failure:
        prove(make_bundle(LOCAL).path, [])
    text = str(failure.value)
    assert text.startswith("the bundle does not start in a clean process, so it would not in a container: ")
    assert 'File "test.ipynb, cell 1", line 7, in initialize' in text
    assert text.endswith("Import it in a cell by name, so that it is captured, or install it.")


CHANGING = """
class H(nbserve.Handler):
    def initialize(self, context):
        self.count = 0

    def handle(self, requests, context):
        self.count += 1
        if "file" in requests:
            open("no" + "tes.csv")
        return [{"count": self.count, "double": request * 2} for request in requests]
"""


@pytest.mark.process
def test_another_answer_stops_the_export_and_names_the_request(make_bundle: MakeBundle, proofs: Path) -> None:
    bundle = make_bundle(CHANGING)
    with pytest.raises(GoldenMismatch) as failure:
        prove(bundle.path, [pair(2, {"count": 1, "double": 4}), pair(3, {"count": 7, "double": 6})])
    assert str(failure.value) == (
        "in a clean process, request 2 (application/json 3) is answered in another way: $.count: expected 7, got 2\n"
        "Asked again it answers 3: what is new in each answer, such as an id, a time or a random number, cannot be "
        "compared. Leave it out of the answer, or out of the comparison: ignore '$.count'."
    )
    with pytest.raises(GoldenMismatch) as failure:
        prove(bundle.path, [pair("file", 1)])
    assert "status: expected 200, got 500 (" in str(failure.value)
    assert 'File "test.ipynb, cell 1", line 10, in handle' in str(failure.value)
    assert str(failure.value).endswith("load the file in a cell, and use what was loaded.")
    said: list[str] = []
    assert prove(bundle.path, [pair(3, {"count": 7, "double": 6})], said.append, ["$.count"]) == 1
    assert said[-1] == "it answers the recorded request as the notebook did"


@pytest.mark.process
def test_a_server_that_cannot_even_begin_is_quoted(
    make_bundle: MakeBundle, proofs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, program = make_bundle(PROBE), tmp_path / "python"
    program.write_text("#!/bin/sh\necho No module named nbserve >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(ExportError, match="not in a container: No module named nbserve\nInstall nbserve here"):
        prove(bundle.path, [])


def test_without_requests_it_says_that_nothing_was_compared() -> None:
    said = proof._summary(Replay("http://h", 0, 0), "digits")
    assert said.startswith("it starts, but nothing was compared, as no request is recorded: %serve predict digits ...")


def test_the_environment_is_the_machines_and_not_the_users(tmp_path: Path) -> None:
    user = {
        "PATH": "/bin",
        "LC_ALL": "C.UTF-8",
        "CUDA_VISIBLE_DEVICES": "1",
        "HOME": "/home/me",
        "PYTHONPATH": "/home/me/src",
        "PYTHONSTARTUP": "x",
        "NBSERVE_WORKERS": "8",
        "NBSERVE_RUNTIME_DIR": "/run/me",
        "HF_HOME": "/models",
        "OPENAI_API_KEY": "secret",
        "TORCHINDUCTOR_CACHE_DIR": "/cache",
    }
    clean = cleanroom.environment(user, tmp_path)
    assert {name: clean[name] for name in ("PATH", "LC_ALL", "CUDA_VISIBLE_DEVICES")} == {
        name: user[name] for name in ("PATH", "LC_ALL", "CUDA_VISIBLE_DEVICES")
    }
    ours = {"HOME", "XDG_CACHE_HOME", "NBSERVE_RUNTIME_DIR"}
    assert all(clean[name].startswith(str(tmp_path)) for name in ours)
    assert clean.keys() - ours - user.keys() <= {"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONUSERBASE"}
    assert not clean.keys() & {"PYTHONPATH", "PYTHONSTARTUP", "NBSERVE_WORKERS", "HF_HOME", "OPENAI_API_KEY"}


def test_a_handler_that_writes_into_its_bundle_is_told_that_a_container_cannot(tmp_path: Path) -> None:
    (tmp_path / "app.py").touch()

    def write() -> None:
        with proof._untouched(tmp_path):
            (tmp_path / "model").mkdir()
            (tmp_path / "model" / "new.bin").touch()

    with pytest.raises(ExportError, match=r"wrote into its bundle \(model/new.bin\).*gettempdir"):
        write()
    with proof._untouched(tmp_path):
        pass


def test_what_is_compiled_is_warmed_with_the_requests_which_stay_out_of_the_bundle(tmp_path: Path) -> None:
    file = tmp_path / "golden.jsonl"
    with proof._warming(tmp_path, [pair(1, 2)]):
        assert len(file.read_text().splitlines()) == 1
    assert not file.exists()
    file.write_text("as it was\n")
    with proof._warming(tmp_path, []):
        pass
    assert file.read_text() == "as it was\n"


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        ("ModuleNotFoundError: No module named 'a.b'", "Only the notebook's process finds a.b"),
        ("FileNotFoundError: [Errno 2] ...: 'x.csv'", "load the file in a cell"),
        ("ValueError: no", ""),
    ],
)
def test_errors_that_come_only_outside_the_notebook_are_explained(error: str, hint: str) -> None:
    assert hint in proof._hint(error)
    assert bool(hint) == bool(proof._hint(error))

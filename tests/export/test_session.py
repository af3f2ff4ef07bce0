"""A whole export: the same bytes each time, proven first, and nothing left of one that fails."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from nbserve.bundle.bundle import Bundle, Golden, golden_text, read_golden
from nbserve.errors import BundleError, ExportError, GoldenMismatch
from nbserve.export import docker, session
from nbserve.export.build import Image
from nbserve.export.folder import MARKER
from nbserve.export.options import ExportOptions
from nbserve.export.session import export
from tests.export.handmade import make_bundle

JSON = "application/json"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PAIR = Golden(b"[1]", JSON, 200, b"[2]", JSON)
EXPECTED = {
    "Dockerfile",
    ".dockerignore",
    "README.md",
    "compose.yaml",
    "export.json",
    "golden.jsonl",
    "k8s/deployment.yaml",
    "ray_app.py",
    "ray_serve.yaml",
    "requirements.lock",
    "sbom.cdx.json",
    "bundle/app.py",
    "bundle/model/net.safetensors",
    "bundle/nbserve.toml",
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[Golden]]:
    """The requests that a proof was asked for; bundles written by hand cannot be started."""
    asked: list[Sequence[Golden]] = []

    def prove(bundle: Path, pairs: Sequence[Golden], on_progress: Callable[[str], None], *others: object) -> int:
        assert Bundle.read(bundle).version
        asked.append(pairs)
        return len(pairs)

    monkeypatch.setattr(session, "prove", prove)
    return asked


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    made = make_bundle(tmp_path / "source")
    made.record(PAIR.request_body, JSON, 200, PAIR.answer_body, JSON)
    return made


def _contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in [folder, *folder.rglob("*")]
    }


def _differing(one: Path, two: Path) -> set[str]:
    first, second = _contents(one), _contents(two)
    return {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}


def _siblings(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_two_exports_are_the_same_in_every_byte_and_mode(
    bundle: Bundle, asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(bundle.path, tmp_path / "one")
    monkeypatch.setattr(time, "time", lambda: 4e9)
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o077)
    try:
        export(Path("source"), Path("some/where/else"))
        # Over an earlier one, too.
        export("source", "some/where/else")
    finally:
        os.umask(before)
    assert _differing(tmp_path / "one", tmp_path / "some" / "where" / "else") == set()
    modes = {mode & 0o7777 for mode, _ in _contents(tmp_path / "one").values()}
    assert modes == {0o644, 0o755}


def test_everything_is_there_and_nothing_of_this_machine(bundle: Bundle, asked: list[Any], tmp_path: Path) -> None:
    told: list[str] = []
    made = export(bundle.path, tmp_path / "out", on_progress=told.append)
    files = {name for name, (mode, _) in _contents(made.path).items() if mode & 0o100000}
    assert files >= EXPECTED
    assert "bundle/golden.jsonl" not in files
    assert made.files == len(files)
    assert made.size_bytes == sum((made.path / name).stat().st_size for name in files)
    assert read_golden(made.path / "golden.jsonl") == [PAIR]
    contents = {name: (made.path / name).read_bytes() for name in files}
    own = (bytes(tmp_path), bytes(Path.cwd()))
    assert [(name, word) for name, content in contents.items() for word in own if word in content] == []
    lock = contents["requirements.lock"].decode().splitlines()
    assert all(line.startswith("./wheels/") or "==" in line for line in lock)
    assert [line for line in lock if line.startswith("./")] == [f"./wheels/{name}" for name in made.plan.wheels]
    digests = json.loads(contents[MARKER])["files"]
    assert digests == {name: hashlib.sha256(contents[name]).hexdigest() for name in files - {MARKER}}
    assert told[0] == f"checking the bundle of digits, version {bundle.version}"


def test_what_it_says_are_sizes_the_proof_and_the_next_commands(
    bundle: Bundle, asked: list[Any], tmp_path: Path
) -> None:
    made = export(bundle.path, tmp_path / "out")
    lines = str(made).splitlines()
    assert lines[0].startswith(f"exported digits {bundle.version} to {tmp_path}/out: {made.files} files, ")
    assert lines[1] == "started in a clean process, it answered 1 recorded request as in the notebook"
    assert lines[2:4] == ["next:", f"  docker build -t digits:{bundle.version} {tmp_path}/out"]
    assert lines[-1].startswith("  nbserve verify http://127.0.0.1:8080/predictions/digits ")
    assert made.commands("here")[2].split()[3] == "here/golden.jsonl"


def test_without_a_recorded_request_it_says_what_was_not_proven(asked: list[Any], tmp_path: Path) -> None:
    made = export(make_bundle(tmp_path / "source").path, tmp_path / "out")
    assert made.proven == 0
    assert "no request was recorded to ask it (%serve predict digits ...)" in str(made)
    assert (made.path / "golden.jsonl").read_text() == ""


def test_the_newest_requests_go_along_up_to_a_size(
    asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "GOLDEN_BYTES", 10)
    bundle = make_bundle(tmp_path / "source")
    for text in (b"oldest", b"older", b"new"):
        bundle.record(text, JSON, 200, b"1", JSON)
    export(bundle.path, tmp_path / "out")
    assert [pair.request_body for pair in asked[0]] == [b"older", b"new"]


def test_a_golden_file_takes_the_place_of_what_was_recorded(bundle: Bundle, asked: list[Any], tmp_path: Path) -> None:
    given = Golden(b"\xff", "image/png", 200, b"cat", "text/plain")
    file = tmp_path / "mine.jsonl"
    file.write_text(golden_text([given]))
    made = export(bundle.path, tmp_path / "out", ExportOptions(golden=file))
    assert asked == [[given]]
    assert read_golden(made.path / "golden.jsonl") == [given]
    with pytest.raises(ExportError, match=r"no\.jsonl cannot be read: No such file"):
        export(bundle.path, tmp_path / "out", ExportOptions(golden=tmp_path / "no.jsonl"))


def test_the_bundle_of_an_export_is_exported_with_the_requests_beside_it(
    bundle: Bundle, asked: list[Any], tmp_path: Path
) -> None:
    export(bundle.path, tmp_path / "out")
    made = export(tmp_path / "out" / "bundle", tmp_path / "out", ExportOptions(port=9000))
    assert asked == [[PAIR], [PAIR]]
    assert made.plan.port == 9000


def test_what_was_put_in_its_place_meanwhile_stays(
    bundle: Bundle, asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prove(*arguments: object) -> int:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.tex").write_text("years")
        return 0

    monkeypatch.setattr(session, "prove", prove)
    with pytest.raises(ExportError, match="was not written by an export"):
        export(bundle.path, tmp_path / "out")
    assert _siblings(tmp_path / "out") == ["thesis.tex"]


def test_another_answer_stops_it_and_leaves_nothing(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prove(*arguments: object) -> int:
        raise GoldenMismatch("request 3 of 12 was answered in another way")

    monkeypatch.setattr(session, "prove", prove)
    with pytest.raises(GoldenMismatch, match="request 3 of 12"):
        export(bundle.path, tmp_path / "deep" / "out")
    assert _siblings(tmp_path) == ["source"]


def test_a_full_disk_leaves_the_earlier_export(
    bundle: Bundle, asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(bundle.path, tmp_path / "out")
    before = _contents(tmp_path)

    def fill(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("shutil.copyfile", fill)
    with pytest.raises(ExportError, match="the disk is full"):
        export(bundle.path, tmp_path / "out")
    assert _contents(tmp_path) == before


def test_a_damaged_bundle_is_not_exported(bundle: Bundle, asked: list[Any], tmp_path: Path) -> None:
    (bundle.path / "model" / "net.safetensors").write_bytes(b"weighty")
    with pytest.raises(BundleError, match="was changed or damaged"):
        export(bundle.path, tmp_path / "out")
    assert _siblings(tmp_path) == ["source"]


def test_what_cannot_be_built_is_said_before_the_work(
    bundle: Bundle, asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("NBSERVE_BUILDER", raising=False)
    with pytest.raises(ExportError):
        export(bundle.path, tmp_path / "out", ExportOptions(build="digits:1"))
    assert (asked, _siblings(tmp_path)) == ([], ["source"])


def test_an_image_is_built_of_a_finished_folder_and_a_failure_leaves_nothing(
    bundle: Bundle, asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(folder: Path, plan: Any, tag: str, on_progress: Any) -> Image:
        assert (folder / MARKER).exists()
        assert (folder / "bundle" / "model").stat().st_mode & 0o777 == 0o755
        if tag == "fails":
            raise ExportError("package left-pad is not on the index")
        return Image(tag, 1_220_000_000)

    monkeypatch.setattr(session, "find_builder", lambda: None)
    monkeypatch.setattr(session, "build", build)
    with pytest.raises(ExportError, match="left-pad"):
        export(bundle.path, tmp_path / "out", ExportOptions(build="fails"))
    assert _siblings(tmp_path) == ["source"]
    made = export(bundle.path, tmp_path / "out", ExportOptions(build="digits:1"))
    assert (made.image, made.image_bytes, made.plan.image) == ("digits:1", 1_220_000_000, "digits:1")
    assert "image digits:1, 1.2 GB" in str(made)
    assert "docker build" not in str(made)


@pytest.mark.parametrize(
    ("device", "gpu", "is_gpu", "exported"),
    [
        ("auto", None, False, "auto"),
        ("cuda:1", None, True, "cuda:1"),
        ("cuda", False, False, "cpu"),
        ("auto", True, True, "auto"),
        ("cpu", True, True, "auto"),
        ("mps", None, False, "auto"),
    ],
)
def test_the_device_fits_the_image(
    device: str, gpu: bool | None, is_gpu: bool, exported: str, asked: list[Any], tmp_path: Path
) -> None:
    made = export(make_bundle(tmp_path / "source", device=device).path, tmp_path / "out", ExportOptions(gpu=gpu))
    assert made.plan.is_gpu is is_gpu
    assert made.plan.settings["device"] == exported
    assert Bundle.read(made.path / "bundle").settings["device"] == exported
    assert any("device is" in note for note in made.notes) is (device != exported)
    assert Bundle.read(tmp_path / "source").settings["device"] == device


def test_options_reach_the_files(bundle: Bundle, asked: list[Any], tmp_path: Path) -> None:
    options = ExportOptions(port=9000, index_url="https://mirror.example/simple", base="example/python:3.11")
    made = export(bundle.path, tmp_path / "out", options)
    text = (made.path / "Dockerfile").read_text()
    assert "ARG BASE=example/python:3.11\n" in text
    assert "ARG TORCH_INDEX=https://mirror.example/simple\n" in text
    assert "NBSERVE_PORT=9000 " in text


def test_a_compiled_handler_gets_a_base_with_a_compiler_and_its_cache_comes_along(
    asked: list[Any], tmp_path: Path
) -> None:
    compiled = make_bundle(tmp_path / "source", compile="inductor")
    assert export(compiled.path, tmp_path / "one").plan.base == docker.base(PYTHON, has_compiler=True)
    cached = make_bundle(tmp_path / "cached", {"cache/inductor/a.so": b"machine code"}, compile="inductor")
    made = export(cached.path, tmp_path / "two")
    assert made.plan.base == docker.base(PYTHON, has_compiler=True)
    assert "COPY bundle/cache /opt/nbserve/bundle/cache/" in (made.path / "Dockerfile").read_text()


def test_an_edited_local_module_is_named(asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "nbtest_edited.py").write_text("x = 2\n")
    monkeypatch.syspath_prepend(str(tmp_path / "work"))
    bundle = make_bundle(tmp_path / "source", {"lib/nbtest_edited.py": b"x = 1\n"})
    told: list[str] = []
    made = export(bundle.path, tmp_path / "out", on_progress=told.append)
    (note,) = made.notes
    assert "nbtest_edited.py was edited after the cell was served" in note
    assert f"note: {note}" in str(made)
    assert note in told
    assert (made.path / "bundle" / "lib" / "nbtest_edited.py").read_text() == "x = 1\n"


CAPTURE = """
import json
from pathlib import Path
import numpy as np, torch, nbserve
from nbserve.capture.capture import capture
from nbserve.handler import Context

torch.manual_seed(0)
text = '''
import helpers_of_export
words = {"the", "a", "of", "and"}
net = torch.nn.Linear(4, 3)
table = np.arange(20000.0)
class H(nbserve.Handler):
    labels = {"b": 1, "a": 2}
    def initialize(self, context):
        self.model = net.eval()
    def preprocess(self, requests):
        return torch.tensor(requests, dtype=torch.float32) + float(table[1]) * helpers_of_export.one + len(words)
'''
namespace = {"__name__": "__main__", "nbserve": nbserve, "torch": torch, "np": np}
exec(compile("\\n" + text, "<cell>", "exec"), namespace)
made = capture(namespace["H"], name="h", namespace=namespace, cell=("%%serve h\\n" + text, "a.ipynb, cell 1"),
               settings={"workers": 1}, store=Path("store"))
handler = namespace["H"]()
context = Context("", "cpu", 0, "h", "1", None)
handler.context = context
handler.initialize(context)
answer = json.dumps(handler.handle([[1, 2, 3, 4]], context)[0].tolist()).encode()
made.record(b"[1, 2, 3, 4]", "application/json", 200, answer, "application/json")
print(made.path)
"""


@pytest.mark.process
def test_a_notebook_run_twice_is_exported_twice_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = [_kernel(tmp_path / name, seed) for name, seed in (("one", "1"), ("two", "2"))]
    first, second = (Path(kernel.communicate(timeout=120)[0].strip()) for kernel in kernels)
    one = export(tmp_path / "one" / first, tmp_path / "out" / "one")
    assert one.proven == 1
    # Once is enough for a proof, and it takes the time of a start.
    monkeypatch.setattr(session, "prove", lambda *arguments: 1)
    two = export(tmp_path / "two" / second, tmp_path / "out" / "two")
    assert _differing(one.path, two.path) == set()
    assert _siblings(tmp_path / "out") == ["one", "two"]


def _kernel(folder: Path, seed: str) -> subprocess.Popen[str]:
    """A process that serves the same cell from this folder; it says where the bundle is."""
    folder.mkdir()
    (folder / "helpers_of_export.py").write_text("one = 1.0\n")
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", CAPTURE]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)

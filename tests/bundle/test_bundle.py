"""The folder and the store: fingerprints, damage, records, links, and what is thrown away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nbserve.bundle.bundle import KEEP_GOLDEN, Bundle
from nbserve.bundle.markers import without_markers
from nbserve.cachedir import cache_dir
from nbserve.capture.store import Store
from nbserve.errors import BundleError

CELL = "# %%serve test\nclass Served(nbserve.Handler):\n    model = net\n"


@pytest.fixture
def bundle(notebook: Any) -> Bundle:
    notebook.run("import torch, nbserve\ntorch.manual_seed(0)\nnet = torch.nn.Linear(300, 300)", CELL)
    found: Bundle = notebook.serve(settings={"workers": 2, "device": None}, provenance={"notebook": "a.ipynb"})
    return found


def test_what_was_written_is_read(bundle: Bundle) -> None:
    read = Bundle.read(str(bundle.path))
    assert read == bundle
    assert read.path.name == f"test-{read.version}"
    assert (read.handler, read.settings, read.imports) == ("app:Served", {"workers": 2}, [])
    assert read.provenance["notebook"] == "a.ipynb"
    assert read.provenance["cell"] == "test.ipynb, cell 2"
    assert set(read.provenance) == {"notebook", "cell", "python", "torch", "nbserve"}
    read.check()


def test_the_same_cell_again_is_the_same_version(bundle: Bundle, notebook: Any) -> None:
    bundle.record(b"1", "application/json", 200, b"2", "application/json")
    written = {path: path.stat().st_mtime_ns for path in (notebook.store.root / "blobs").iterdir()}
    notebook.run("x = 1", CELL)
    again = notebook.serve(settings={"workers": 3})
    assert (again.version, again.path) == (bundle.version, bundle.path)
    assert Bundle.read(again.path).settings == {"workers": 3}
    assert "# %% test.ipynb, cell 4, line 2" in (again.path / "app.py").read_text()
    assert [pair.answer_body for pair in again.golden()] == [b"2"]
    assert {path: path.stat().st_mtime_ns for path in (notebook.store.root / "blobs").iterdir()} == written
    assert not list((notebook.store.root / "bundles").glob(".new-*"))


def test_other_settings_are_the_same_version(bundle: Bundle, notebook: Any) -> None:
    bundle.record(b"1", "application/json", 200, b"2", "application/json")
    before = {path: path.stat().st_mtime_ns for path in bundle.path.rglob("*") if path.name != "nbserve.toml"}
    tuned = bundle.with_settings({"max_batch_size": 8, "policy": "window"})
    assert tuned == Bundle.read(bundle.path)
    assert (tuned.settings, tuned.version) == ({"max_batch_size": 8, "policy": "window"}, bundle.version)
    tuned.check()
    assert [path for path, at_ns in before.items() if path.stat().st_mtime_ns != at_ns] == []
    notebook.serve(settings={}, provenance={"notebook": "b.ipynb"})
    assert tuned.with_settings({"workers": 3}).provenance["notebook"] == "b.ipynb"
    bundle.path.joinpath("nbserve.toml").unlink()
    with pytest.raises(BundleError, match=r"it has no nbserve\.toml"):
        tuned.with_settings({})


def test_another_store_gets_the_same_bytes(bundle: Bundle, notebook: Any, tmp_path: Path) -> None:
    other = notebook.serve(settings={"workers": 2}, provenance={"notebook": "a.ipynb"}, store=tmp_path / "other")
    files = sorted(path.relative_to(bundle.path) for path in bundle.path.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(other.path) for path in other.path.rglob("*") if path.is_file())
    assert all((bundle.path / file).read_bytes() == (other.path / file).read_bytes() for file in files)


def test_other_code_and_other_weights_are_other_versions(bundle: Bundle, notebook: Any) -> None:
    notebook.run("with torch.no_grad(): net.weight += 1", CELL)
    other_weights = notebook.serve()
    notebook.run(CELL + "    extra = 1\n")
    assert len({bundle.version, other_weights.version, notebook.serve().version}) == 3


def test_unchanged_weights_are_linked_and_readable_by_all(bundle: Bundle, notebook: Any) -> None:
    notebook.run(CELL + "    extra = 1\n")
    other = notebook.serve()
    one, two = (path / "model" / "net.safetensors" for path in (bundle.path, other.path))
    assert one.samefile(two)
    assert one.stat().st_mode & 0o777 == 0o644


def test_without_hard_links_files_are_copied(notebook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    notebook.run("import torch, nbserve\nnet = torch.nn.Linear(3, 3)", CELL)
    made = notebook.serve()
    assert made.path.joinpath("model/net.safetensors").stat().st_nlink == 1
    Bundle.read(made.path).check()


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda path: (path / "nbserve.toml").unlink(), "is not a bundle: it has no nbserve.toml"),
        (lambda path: (path / "nbserve.toml").write_text("name = ["), "nbserve.toml is damaged"),
        (lambda path: (path / "nbserve.toml").write_text("format = 99"), "has format 99, this nbserve reads 1"),
        (lambda path: (path / "nbserve.toml").write_text("format = 1\nname = 3"), "name is 3, not a str"),
        (lambda path: (path / "app.py").unlink(), "is damaged: .*app.py"),
        (lambda path: (path / "app.py").write_text("x = 1\n"), "was changed after it was written"),
        (lambda path: (path / "app.py").write_text("x = "), "is damaged: .*invalid syntax"),
        (lambda path: (path / "requirements.txt").write_text("evil"), "was changed after it was written"),
        (lambda path: (path / "model" / "manifest.json").write_text("{"), "was changed after it was written"),
        (lambda path: (path / "model" / "net.safetensors").unlink(), "model/net.safetensors is missing"),
        (lambda path: replace(path / "model" / "net.safetensors", b"short"), "net.safetensors has 5 bytes, not "),
        (lambda path: (path / "lib").mkdir() or (path / "lib" / "x.py").write_text(""), "was changed after it was"),
    ],
)
def test_damage_is_named(damage: Any, text: str, bundle: Bundle) -> None:
    damage(bundle.path)
    with pytest.raises(BundleError, match=text):
        Bundle.read(bundle.path)


def test_changed_weights_of_equal_size_are_found_by_check(bundle: Bundle) -> None:
    file = bundle.path / "model" / "net.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    replace(file, bytes(content))
    Bundle.read(bundle.path)
    with pytest.raises(BundleError, match=r"net\.safetensors was changed or damaged"):
        bundle.check()


def replace(file: Path, content: bytes) -> None:
    file.unlink()
    file.write_bytes(content)


def test_records_are_kept_newest_last_and_capped(bundle: Bundle) -> None:
    for number in range(KEEP_GOLDEN + 5):
        bundle.record(b"%d" % number, "application/json", 200, b"\xff\x00", "application/octet-stream")
    bundle.record(b"20", "text/plain", 200, b"\xc3\xa9", "text/plain")
    golden = Bundle.read(bundle.path).golden()
    assert len(golden) == KEEP_GOLDEN
    assert (golden[0].request_body, golden[-2].request_body) == (b"5", b"54")
    assert golden[0].answer_body == b"\xff\x00"
    assert (golden[-1].request_body, golden[-1].content_type, golden[-1].answer_body) == (
        b"20",
        "text/plain",
        b"\xc3\xa9",
    )


def test_a_damaged_record_is_named(bundle: Bundle) -> None:
    (bundle.path / "golden.jsonl").write_text('{"request_body": 3}\n')
    with pytest.raises(BundleError, match=r"golden\.jsonl is damaged at"):
        bundle.golden()


def test_old_bundles_and_their_blobs_go_but_not_those_in_use(notebook: Any) -> None:
    notebook.run("import torch, nbserve")
    made = []
    for number in range(6):
        notebook.run(f"net = torch.full((300,), {number}.0)", CELL)
        made.append(notebook.serve())
        os.utime(made[-1].path, (number, number))
    other = notebook.serve(name="test-2")
    removed = notebook.store.prune("test", in_use=[made[0].path], keep=2)
    assert sorted(removed) == sorted(bundle.path for bundle in made[1:4])
    assert other.path.exists()
    for bundle in (made[0], made[4], made[5], other):
        Bundle.read(bundle.path).check()
    linked = {path.stat().st_ino for path in notebook.store.bundles.rglob("*") if path.is_file()}
    assert all(path.stat().st_ino in linked for path in notebook.store.blobs.iterdir())


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)

    def fail(*_: object) -> int:
        raise OSError("disk full")

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(OSError, match="disk full"):
        store.put([b"x" * 100])
    assert not list(store.blobs.iterdir())


def test_the_store_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NBSERVE_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_dir() == Path.home() / ".cache" / "nbserve"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_dir() == Path("/x/nbserve")
    monkeypatch.setenv("NBSERVE_CACHE_DIR", "/y")
    assert cache_dir() == Path("/y")


def test_only_comments_above_statements_are_markers() -> None:
    source = 'x = """\n# %% a, line 1\n"""\n# %% b, line 7\ny = 1\n'
    assert without_markers(source) == 'x = """\n# %% a, line 1\n"""\ny = 1'


def test_what_the_server_reads_imports_no_torch() -> None:
    code = (
        "import sys, nbserve.bundle.bundle, nbserve.capture.requirements, nbserve.capture.store\n"
        "print(sorted({'torch', 'numpy', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

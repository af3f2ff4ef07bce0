"""The folder of an export: whole or not at all, and nothing of anybody's own lost."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from nbserve.errors import ExportError
from nbserve.export import folder
from nbserve.export.folder import MARKER, Stage, size_text, staged


def _export(target: Path, text: str = "one", needed_bytes: int = 0) -> None:
    with staged(target, needed_bytes) as stage:
        stage.write({"README.md": text, "k8s/service.yaml": text})
        stage.seal()
        stage.place()


def _fail(target: Path, error: BaseException) -> None:
    with staged(target, 0) as stage:
        stage.write({"bundle/app.py": "two"})
        raise error


def _snapshot(path: Path) -> dict[str, tuple[int, bytes]]:
    return {
        file.relative_to(path).as_posix(): (file.stat().st_mode & 0o777, file.read_bytes() if file.is_file() else b"")
        for file in path.rglob("*")
    }


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_it_is_in_its_place_with_modes_that_everybody_reads(target: Path) -> None:
    before = os.umask(0o077)
    try:
        _export(target / "deep")
    finally:
        os.umask(before)
    modes = {name: mode for name, (mode, _) in _snapshot(target / "deep").items()}
    assert modes == {"README.md": 0o644, "k8s": 0o755, "k8s/service.yaml": 0o644, MARKER: 0o644}
    assert (target / "deep").stat().st_mode & 0o777 == 0o755
    assert [path.name for path in target.iterdir()] == ["deep"]


@pytest.mark.parametrize("has_exchange", [True, False])
def test_an_earlier_export_is_replaced(target: Path, has_exchange: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_exchange:
        monkeypatch.setattr(folder.ctypes, "CDLL", lambda _: object())
    _export(target)
    (target / "__pycache__").mkdir()
    (target / "__pycache__" / "ray_app.pyc").write_bytes(b"")
    _export(target, "two")
    assert (target / "README.md").read_text() == "two"
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def test_an_empty_folder_is_taken(target: Path) -> None:
    target.mkdir()
    _export(target)
    assert (target / MARKER).exists()


def test_a_folder_that_is_no_export_is_left_alone(target: Path) -> None:
    target.mkdir()
    (target / "thesis.tex").write_text("years")
    with pytest.raises(ExportError, match=r"out exists and was not written by an export: export to another folder"):
        _export(target)
    assert [path.name for path in target.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("k8s/overlay.yaml", r"holds k8s/overlay.yaml, which nbserve did not put there"),
        ("README.md", r"README.md in .*out was changed since it was exported"),
    ],
)
def test_an_export_that_somebody_worked_in_is_left_alone(target: Path, file: str, text: str) -> None:
    _export(target)
    (target / file).write_text("mine")
    before = _snapshot(target.parent)
    with pytest.raises(ExportError, match=text):
        _export(target, "two")
    assert _snapshot(target.parent) == before


def test_a_marker_of_somebody_else_is_none(target: Path) -> None:
    target.mkdir()
    for text in ("", "[]", '{"format": 1}', '{"format": 99, "files": {}}', '{"format": 1, "files": 3}'):
        (target / MARKER).write_text(text)
        with pytest.raises(ExportError, match="was not written by an export"):
            _export(target)


def test_a_file_in_the_way_is_named(target: Path) -> None:
    target.write_text("")
    with pytest.raises(ExportError, match="out exists and is no folder"):
        _export(target)
    with pytest.raises(ExportError, match=r"cannot export to .*out/deep/er: a part of that path is a file"):
        _export(target / "deep" / "er")
    assert [path.name for path in target.parent.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "your quota on that disk is used up"),
        (errno.EACCES, "you may not write there"),
        (errno.EROFS, "nobody can write there"),
    ],
)
def test_what_the_disk_refuses_is_said_and_nothing_is_left(target: Path, code: int, text: str) -> None:
    _export(target)
    before = _snapshot(target.parent)
    with pytest.raises(ExportError, match=text):
        _fail(target, OSError(code, os.strerror(code), "README.md"))
    assert _snapshot(target.parent) == before


def test_a_folder_that_nobody_can_write_in_is_said() -> None:
    with pytest.raises(ExportError, match="cannot export to /proc/nbserve/out"), staged(Path("/proc/nbserve/out"), 0):
        pass


def test_a_folder_of_somebody_else_is_said() -> None:
    # Not tmp_path, which nobody else reaches.
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        closed = place / "closed"
        closed.mkdir(mode=0)
        place.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            # Modes do not keep root from anything.
            os.seteuid(65534)
        try:
            for target in (place / "out", closed / "out", closed / "deep" / "out"):
                with pytest.raises(ExportError, match=f"cannot export to {target}: you may not write there"):
                    _export(target)
        finally:
            os.seteuid(user)
            place.chmod(0o755)
            closed.chmod(0o700)
        assert list(place.iterdir()) == [closed]
        assert list(closed.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt()])
def test_whatever_ends_it_leaves_nothing(target: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        _fail(target / "deep" / "er", error)
    assert list(target.parent.iterdir()) == []


def test_too_little_space_is_seen_before_anything_is_written(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage: Any = shutil.disk_usage(target.parent)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ExportError, match=r"the export takes 2.5 GB, and .* has 1.0 MB left"):
        _export(target / "deep", needed_bytes=2_500_000_000)
    assert list(target.parent.iterdir()) == []


def test_the_files_of_a_stage_are_counted_without_what_programs_leave(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tmp_path / "out")
    stage.write({"bundle/lib/a.py": "12345", "bundle/lib/__pycache__/a.pyc": "x", "README.md": "12"})
    assert stage.files() == ["README.md", "bundle/lib/a.py"]
    assert stage.files("bundle") == ["lib/a.py"]
    assert stage.size_bytes() == 7
    stage.seal()
    assert not list(tmp_path.rglob("*.pyc"))


def test_sizes_are_short() -> None:
    sizes = [0, 999, 1_000, 45_300, 999_600, 1_220_000_000, 4_000_000_000_000]
    assert [size_text(size) for size in sizes] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "45 kB",
        "1.0 MB",
        "1.2 GB",
        "4000.0 GB",
    ]

"""The compiler that remembers, with a compiler that only says what it was asked; and which machines share a cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nbserve.worker.tuning import compiling, cxx, shipped
from nbserve.worker.tuning.shipped import Kind

Run = Callable[..., int]
FAKE = """#!/bin/sh
echo called >> {log}
while [ $# -gt 0 ]; do
  case "$1" in
    --version) echo "g++ 12"; exit 0;;
    -o) shift; out=$1;;
    *.cpp) [ "$(cat $1)" = bad ] && { echo "cannot" >&2; exit 3; }; cp "$1" made;;
  esac
  shift
done
mv made $out
"""


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A g++ in PATH, alone but for what shell scripts need; the lines of this file count its calls."""
    log, program = tmp_path / "calls", tmp_path / "bin" / "g++"
    program.parent.mkdir()
    program.write_text(FAKE.replace("{log}", str(log)))
    program.chmod(0o755)
    for name in ("cat", "cp", "mv"):
        (program.parent / name).symlink_to(f"/bin/{name}")
    log.touch()
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.chdir(tmp_path)
    return log


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(*arguments: str, record: bool = False) -> int:
        return cxx.run(arguments, {cxx.FOLDER: str(tmp_path / "memory"), cxx.RECORD: str(int(record))})

    return run


def source(folder: Path, text: str = "int x;", name: str = "a.cpp") -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return str(folder / name)


def test_what_was_made_is_given_again_wherever_its_files_lie(compiler: Path, run: Run, tmp_path: Path) -> None:
    made = tmp_path / "made.so"
    first = source(tmp_path / "here", 'int x;\n#include "/home/me/torch/prefix.h"')
    assert run(first, "-O3", "-I/home/me/include", "-L", "/home/me/lib", "-o", str(made), record=True) == 0
    assert made.read_text().startswith("int x;")
    (tmp_path / "bin" / "g++").unlink()
    again = tmp_path / "again.so"
    second = source(tmp_path / "there", 'int x;\n#include "/opt/venv/torch/prefix.h"', "b.cpp")
    assert run(second, "-O3", "-I/opt/venv/include", "-L", "/opt/venv/lib", "-o", str(again)) == 0
    assert again.read_bytes() == made.read_bytes()
    assert len(compiler.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "flags"), [("int y;", ["-O3"]), ("int x;", ["-O2"]), ("int x;", ["-O3", "-fopenmp"]), ("int x;", [])]
)
def test_other_sources_and_other_flags_are_others(
    compiler: Path, run: Run, tmp_path: Path, text: str, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    target = str(tmp_path / "a.so")
    assert run(source(tmp_path / "here"), "-O3", "-o", target, record=True) == 0
    (tmp_path / "bin" / "g++").unlink()
    Path(target).unlink()
    assert run(source(tmp_path / "here", text), *flags, "-o", target) == 1
    assert "there is no g++ here, and this was not compiled before the bundle was shipped" in capsys.readouterr().err
    assert not Path(target).exists()


def test_where_there_is_a_compiler_it_makes_what_is_missing_and_keeps_nothing(
    compiler: Path, run: Run, tmp_path: Path
) -> None:
    assert run(source(tmp_path / "here"), "-o", str(tmp_path / "a.so")) == 0
    assert not (tmp_path / "memory").exists()


def test_what_failed_is_not_kept(compiler: Path, run: Run, tmp_path: Path) -> None:
    assert run(source(tmp_path / "here", "bad"), "-o", str(tmp_path / "a.so"), record=True) == 3
    assert not (tmp_path / "memory").exists()


def test_what_the_compiler_says_of_itself_is_remembered(
    compiler: Path, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("--version", record=True) == 0
    (tmp_path / "bin" / "g++").unlink()
    assert run("--version") == 0
    assert run("-v") == 0
    assert capfd.readouterr().out == "g++ 12\ng++ 12\ng++, as nbserve remembers it\n"


def test_where_nothing_may_be_run_from_the_target_is_a_link(
    compiler: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.so"
    assert run(source(tmp_path / "here"), "-o", str(target), record=True) == 0
    assert run(source(tmp_path / "here"), "-o", str(target)) == 0
    assert not target.is_symlink()
    found = os.statvfs(tmp_path)
    noexec = os.statvfs_result((*found[:8], found[8] | os.ST_NOEXEC, found[9]))
    monkeypatch.setattr(os, "statvfs", lambda path: noexec)
    assert run(source(tmp_path / "here"), "-o", str(target)) == 0
    assert target.is_symlink()
    assert target.resolve().parent == tmp_path / "memory"
    assert target.read_text() == "int x;"


@pytest.mark.parametrize(
    ("name", "is_used"),
    [
        ("torch-2-x-libc2.36", True),
        ("torch-2-x-libc2.9", True),
        ("torch-2-x-libc2.38", False),
        ("torch-3-x-libc2.36", False),
        ("rubbish", False),
    ],
)
def test_a_cache_is_used_where_the_machine_is_of_its_kind(
    name: str, is_used: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    here = Kind("torch-2-x", (2, 36))
    (tmp_path / name).mkdir()
    assert shipped._shipped(tmp_path, here) == (tmp_path / name if is_used else None)
    assert shipped._shipped(tmp_path / "nothing", here) is None


def test_this_machine_is_of_its_own_kind(tmp_path: Path) -> None:
    here = Kind.here()
    assert here.runs(Kind.of(here.folder(tmp_path)))
    assert here == Kind.here()


def test_without_a_compiler_the_error_says_what_image_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class CppCompileError(Exception):
        pass

    monkeypatch.setenv("CXX", cxx.NAME)
    monkeypatch.setenv("PATH", "/nonexistent")
    said = str(compiling.compile_error("inductor", CppCompileError("no")))
    assert "finds none: install g++" in said
    assert "--base docker.io/library/python:3." in said
    monkeypatch.delenv("CXX")
    assert "is it a recent one?" in str(compiling.compile_error("inductor", CppCompileError("no")))


def test_where_nothing_may_be_run_the_error_says_how_to_allow_it() -> None:
    error = OSError("/tmp/cache/a.so: failed to map segment from shared object")
    assert "--tmpfs /tmp:exec" in str(compiling.compile_error("inductor", error))


def test_only_instructions_make_a_kind_of_processor() -> None:
    lines = ["processor : 0", "flags\t\t: fpu vme sse4_2 avx avx512f hypervisor bmi1 ibpb pni", "flags : amx_tile"]
    assert shipped._chosen(lines) == {"sse4_2", "avx", "avx512f", "bmi1"}

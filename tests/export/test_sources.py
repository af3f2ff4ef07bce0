"""What is said of local modules that are not what was served, or that are in no commit."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from nbserve.export.sources import notes


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a committed module and a package; Python imports from it."""
    folder = tmp_path / "work"
    (folder / "nbtest_package").mkdir(parents=True)
    (folder / "nbtest_package" / "__init__.py").write_text("x = 1\n")
    (folder / "nbtest_module.py").write_text("y = 1\n")
    _git(folder, "init", "--quiet")
    _git(folder, "add", ".")
    _git(folder, "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "--message", "One")
    monkeypatch.syspath_prepend(str(folder))
    return folder


def _git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(folder), *words], check=True, stdin=subprocess.DEVNULL)


def _served(repository: Path) -> Path:
    """The lib/ of a bundle that is served now."""
    library = repository.parent / "lib"
    shutil.rmtree(library, ignore_errors=True)
    library.mkdir()
    shutil.copyfile(repository / "nbtest_module.py", library / "nbtest_module.py")
    shutil.copytree(repository / "nbtest_package", library / "nbtest_package")
    return library


def test_what_is_committed_needs_no_note(repository: Path) -> None:
    assert list(notes(_served(repository))) == []
    assert list(notes(repository / "no_lib")) == []


def test_an_edit_since_it_was_served_is_named(repository: Path) -> None:
    library = _served(repository)
    (repository / "nbtest_package" / "__init__.py").write_text("x = 2\n")
    (repository / "nbtest_package" / "__pycache__").mkdir()
    (note,) = notes(library)
    assert note.startswith(f"{repository}/nbtest_package/__init__.py was edited after the cell was served")


def test_changes_and_files_that_git_does_not_have_are_named(repository: Path) -> None:
    (repository / "nbtest_module.py").write_text("y = 2\n")
    (repository / ".gitignore").write_text("/nbtest_package/\n__pycache__/\n")
    _git(repository, "rm", "--quiet", "-r", "--cached", "nbtest_package")
    (repository / "nbtest_package" / "__pycache__").mkdir()
    dirty, unknown = notes(_served(repository))
    assert (
        dirty == f"{repository}/nbtest_module.py has changes that are not committed: what is exported is in no commit"
    )
    assert unknown.startswith(f"{repository}/nbtest_package ")


def test_an_untracked_module_is_named(repository: Path) -> None:
    library = _served(repository)
    (repository / "nbtest_new.py").write_text("z = 1\n")
    shutil.copyfile(repository / "nbtest_new.py", library / "nbtest_new.py")
    assert list(notes(library)) == [f"{repository}/nbtest_new.py is not known to git: what is exported is in no commit"]


def test_without_a_repository_or_an_original_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, plain = tmp_path / "lib", tmp_path / "plain"
    for folder in (library, plain):
        folder.mkdir()
        (folder / "nbtest_plain.py").write_text("")
    (library / "nbtest_gone.py").write_text("")
    monkeypatch.syspath_prepend(str(plain))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert list(notes(library)) == []
    monkeypatch.setenv("PATH", "")
    assert list(notes(library)) == []

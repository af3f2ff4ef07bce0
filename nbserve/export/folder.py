"""The folder of an export: written beside its place, and put there whole or not at all. In the kernel or the CLI."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nbserve.errors import ExportError
from nbserve.export.plan import Files

MARKER = "export.json"
FORMAT = 1
# What programs leave in a folder that somebody looked at or ran something in.
_FLEETING = ("__pycache__", ".ipynb_checkpoints", ".DS_Store")
_EXCHANGE = 2
_AT_CWD = -100
_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your quota on that disk is used up",
    errno.EACCES: "you may not write there",
    errno.EPERM: "you may not write there",
    errno.EROFS: "nobody can write there",
    errno.ENOENT: "a part of that path is not there and cannot be made",
    errno.EBUSY: "something is mounted there",
    errno.ENOTDIR: "a part of that path is a file",
    errno.EEXIST: "a part of that path is a file",
    errno.ENAMETOOLONG: "the path is too long",
}


class Stage:
    """A folder beside the target, of the same file system, which takes its place in the end."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self.target = target

    def write(self, files: Files) -> None:
        for name, text in files.items():
            place = self.path / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8", newline="\n")

    def copy(self, source: Path, files: Iterable[Path], name: str) -> None:
        """Copy these files of `source` to the folder `name`."""
        for file in files:
            place = self.path / name / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)

    def files(self, folder: str = "") -> list[str]:
        """The paths of all files in a folder of it."""
        return [path.relative_to(self.path / folder).as_posix() for path in _files(self.path / folder)]

    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in _files(self.path))

    def seal(self) -> None:
        """List all files in the marker, and give them their modes: what is copied into an image keeps them."""
        _remove_fleeting(self.path)
        digests = {name: _sha256(self.path / name) for name in self.files()}
        self.write({MARKER: json.dumps({"format": FORMAT, "files": digests}, indent=1) + "\n"})
        for path in (self.path, *self.path.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)

    def place(self) -> None:
        """Put it where it belongs."""
        # A proof and a build take their time: somebody may have put something there meanwhile.
        _check_target(self.target)
        if self.target.exists():
            _exchange(self.path, self.target)
        else:
            self.path.rename(self.target)


@contextmanager
def staged(target: Path, needed_bytes: int) -> Iterator[Stage]:
    """A folder to export into. What was not finished is removed; raises ExportError where nothing can be written."""
    made: list[Path] = []
    try:
        _check_target(target)
        made = [folder for folder in target.parents if not folder.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        _check_space(target.parent, needed_bytes)
        path = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            yield Stage(path, target)
        finally:
            # Of a finished export this is the one it replaced.
            shutil.rmtree(path, ignore_errors=True)
    except OSError as error:
        if error.errno in _REASONS:
            raise ExportError(f"cannot export to {target}: {_REASONS[error.errno]} ({error})") from None
        raise
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def _check_target(target: Path) -> None:
    """Only an earlier export is replaced, and only as it was written: nothing of anybody's own is lost."""
    if target.exists() and not target.is_dir():
        raise ExportError(f"{target} exists and is no folder: export to another one")
    if not target.exists() or not any(target.iterdir()):
        return
    elsewhere = "export to another folder, or remove this one"
    earlier = _earlier(target)
    if earlier is None:
        raise ExportError(f"{target} exists and was not written by an export: {elsewhere}")
    found = {path.relative_to(target).as_posix(): path for path in _files(target)}
    if added := sorted(set(found) - set(earlier) - {MARKER}):
        raise ExportError(f"{target} holds {_first(added)}, which nbserve did not put there: {elsewhere}")
    if changed := sorted(name for name, path in found.items() if name != MARKER and _sha256(path) != earlier[name]):
        raise ExportError(f"{_first(changed)} in {target} was changed since it was exported: {elsewhere}")


def _earlier(target: Path) -> dict[str, Any] | None:
    """The files of the export that lies there."""
    try:
        marker = json.loads((target / MARKER).read_text(encoding="utf-8"))
        return dict(marker["files"]) if marker["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _first(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more files"


def _check_space(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise ExportError(f"the export takes {size_text(needed_bytes)}, and {folder} has {size_text(free)} left")


def size_text(size_bytes: float) -> str:
    """`1.2 GB`"""
    for unit in ("bytes", "kB", "MB"):
        if size_bytes < 999.5:
            return f"{size_bytes:.0f} {unit}" if unit == "bytes" or size_bytes >= 10 else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"


def _files(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(path for path in found if not _is_fleeting(path.relative_to(folder)))


def _is_fleeting(path: Path) -> bool:
    return any(part in _FLEETING for part in path.parts) or path.suffix == ".pyc"


def _remove_fleeting(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if _is_fleeting(path.relative_to(folder)):
            path.rmdir() if path.is_dir() else path.unlink()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(8 * 1024 * 1024):
            digest.update(piece)
    return digest.hexdigest()


def _exchange(one: Path, other: Path) -> None:
    """Swap two folders: in one step where the system has it, else in three that can be undone."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 and renameat2(_AT_CWD, os.fsencode(one), _AT_CWD, os.fsencode(other), _EXCHANGE) == 0:
        return
    aside = one.with_name(f"{one.name}-old")
    other.rename(aside)
    try:
        one.rename(other)
    except OSError:
        aside.rename(other)
        raise
    aside.rename(one)

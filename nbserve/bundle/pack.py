"""A bundle, or what was exported of it, as one file to take along. Runs in the server."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from nbserve.bundle.bundle import HEAD, Bundle

# Stored, not squeezed: weights would get a few percent smaller, and a core be taken from those who serve meanwhile.
_LEVEL = 0


def pack(bundle: Bundle, file: IO[bytes]) -> None:
    """Write it as .tar.gz, with the settings of `bundle`, whatever its folder says."""
    folder = f"{bundle.name}-{bundle.version}"
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=_LEVEL, dereference=True) as tar:
        head = bundle.head().encode()
        info = tarfile.TarInfo(f"{folder}/{HEAD}")
        info.size, info.mtime = len(head), int(time.time())
        tar.addfile(info, io.BytesIO(head))
        for path in _files(bundle.path):
            if path != bundle.path / HEAD:
                _add(tar, path, f"{folder}/{path.relative_to(bundle.path)}")


def pack_folder(folder: Path, file: IO[bytes]) -> None:
    """Write a folder as .tar.gz."""
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=_LEVEL, dereference=True) as tar:
        for path in _files(folder):
            _add(tar, path, f"{folder.name}/{path.relative_to(folder)}")


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    # It may be replaced meanwhile: what was opened stays what it was.
    with path.open("rb") as content:
        info = tar.gettarinfo(arcname=name, fileobj=content)
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        tar.addfile(info, content)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        is_fleeting = path.name.startswith(".new-") or "__pycache__" in path.parts
        if path.is_file() and not is_fleeting:
            yield path

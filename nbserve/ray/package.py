"""A bundle as the zip that Ray takes to the nodes. Runs in the kernel or the terminal."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from nbserve.bundle.bundle import GOLDEN, HEAD, Bundle

# Where it lies in the replicas' working folder.
PLACE = "bundle"
# The same bundle makes the same file, so Ray takes it to a node but once.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def size_of(bundle: Bundle, with_golden: bool) -> int:
    return sum(path.stat().st_size for path in _files(bundle.path, with_golden))


def write(bundle: Bundle, file: Path, with_golden: bool) -> None:
    """Write the zip, without settings, which come another way: a live one that changed is no reason for new replicas.

    Recorded requests may hold people's data, and go along only where they are needed to warm up.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_entry(HEAD), replace(bundle, settings={}, provenance={}).head())
        for path in _files(bundle.path, with_golden):
            name = path.relative_to(bundle.path).as_posix()
            if name != HEAD:
                with path.open("rb") as source, archive.open(_entry(name), "w", force_zip64=True) as target:
                    shutil.copyfileobj(source, target, 1 << 20)


def _entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(f"{PLACE}/{name}", _EPOCH)
    info.external_attr = 0o100644 << 16
    return info


def _files(folder: Path, with_golden: bool) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        is_fleeting = path.name.startswith(".new-") or "__pycache__" in path.parts
        if path.is_file() and not is_fleeting and (with_golden or path != folder / GOLDEN):
            yield path

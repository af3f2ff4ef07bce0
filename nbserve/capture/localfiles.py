"""Files that a cell names by a relative path, copied into the bundle's files/, where the worker runs. In the kernel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath

from nbserve.capture.blocks import Use
from nbserve.capture.refusals import refusal

LONGEST_PATH = 1024


def local_files(texts: Mapping[str, Use | None]) -> dict[str, Path]:
    """The texts that name existing files below the working folder, and each file of the folders that they name."""
    found: dict[str, Path] = {}
    for text, use in texts.items():
        path = _existing(text)
        if path is None:
            continue
        if ".." in PurePath(text).parts:
            way_out = "Load it into a variable in a cell, use its absolute path, or put it next to the notebook."
            raise refusal(text, "it is a file outside the notebook's folder, named by a relative path", use, way_out)
        files = sorted(part for part in path.rglob("*") if part.is_file()) if path.is_dir() else [path]
        found |= {PurePath(file).as_posix(): file for file in files}
    return found


def _existing(text: str) -> Path | None:
    """Only what looks like a path: a word such as `cpu` may be the name of a folder by chance."""
    if not text or len(text) > LONGEST_PATH or "\n" in text or "\0" in text or text.startswith("/"):
        return None
    path = Path(text)
    looks_like_path = path.suffix != "" or "/" in text
    try:
        return path if looks_like_path and path.name and (path.is_file() or path.is_dir()) else None
    except OSError:
        return None

"""A bundle as one file to take along. Runs in the server."""

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
            # One may be replaced meanwhile: what was opened stays what it was.
            with path.open("rb") as content:
                info = tar.gettarinfo(arcname=f"{folder}/{path.relative_to(bundle.path)}", fileobj=content)
                info.uid = info.gid = 0
                info.uname = info.gname = ""
                tar.addfile(info, content)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        is_fleeting = path.name.startswith(".new-") or "__pycache__" in path.parts
        if path.is_file() and path != folder / HEAD and not is_fleeting:
            yield path

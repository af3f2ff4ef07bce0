"""Where bundles are kept: content-addressed blobs, and bundle folders that link to them. Runs in the kernel."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nbserve.bundle.bundle import write_atomically
from nbserve.cachedir import cache_dir

Chunk = bytes | memoryview | mmap.mmap

KEEP_BUNDLES = 4
STALE_AFTER_S = 3600.0
_PIECE_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Blob:
    """A stored file; its name in the store is its content."""

    sha256: str
    size_bytes: int
    path: Path


class Store:
    """`bundles/` and `blobs/` under one root. Several kernels may use it at once."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_dir()
        self.bundles = self.root / "bundles"
        self.blobs = self.root / "blobs"

    def put(self, chunks: Sequence[Chunk]) -> Blob:
        """Store the chunks as one file unless its content is there already.

        Only when a blob of that size exists is the content hashed first; otherwise it is hashed while it is written.
        """
        self.blobs.mkdir(parents=True, exist_ok=True)
        size = sum(len(chunk) for chunk in chunks)
        if any(self.blobs.glob(f"*-{size}")):
            digest = _sha256(chunks)
            blob = self._blob(digest, size)
            return blob if blob.path.exists() else self._write(chunks, digest, size)
        return self._write(chunks, None, size)

    def put_file(self, path: Path) -> Blob:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return self.put([])
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return self.put([content])

    def link(self, blob: Blob, target: Path) -> None:
        """Make `target` the blob: a hard link, or a copy where the file system has none."""
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(blob.path, target)
        except OSError:
            shutil.copyfile(blob.path, target)
            target.chmod(0o644)

    @contextmanager
    def new_bundle(self) -> Iterator[Path]:
        """A folder to write a bundle into; what `keep` did not take is removed."""
        self.bundles.mkdir(parents=True, exist_ok=True)
        with self._lock(fcntl.LOCK_SH):
            folder = Path(tempfile.mkdtemp(prefix=".new-", dir=self.bundles))
            try:
                folder.chmod(0o755)
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def keep(self, folder: Path, name: str, version: str) -> Path:
        """Give the bundle its place. One of equal content stays, with its records; texts about its origin are new."""
        place = self.bundles / f"{name}-{version}"
        try:
            folder.rename(place)
        except OSError:
            if not place.is_dir():
                raise
            for changed in ("app.py", "nbserve.toml"):
                (folder / changed).replace(place / changed)
            os.utime(place)
        return place

    def note_served(self, name: str, bundle: Path) -> None:
        """Remember which bundle of that name was the last one to serve."""
        notes = self.root / "served"
        notes.mkdir(parents=True, exist_ok=True)
        write_atomically(notes / name, bundle.name)

    def served(self) -> dict[str, Path]:
        """The bundles that served last, by their names."""
        notes = sorted(path for path in self.root.glob("served/*") if not path.name.startswith(".new-"))
        found = {note.name: self.bundles / note.read_text() for note in notes}
        return {name: bundle for name, bundle in found.items() if bundle.is_dir()}

    def prune(self, name: str, in_use: Iterable[Path] = (), keep: int = KEEP_BUNDLES) -> list[Path]:
        """Remove all but the newest bundles of that name, never one in use, and then the blobs that none links to."""
        used = {path.resolve() for path in in_use}
        with self._lock(fcntl.LOCK_EX):
            ours = [path for path in self.bundles.glob(f"{name}-*") if path.name.rpartition("-")[0] == name]
            newest_first = sorted(ours, key=lambda path: path.stat().st_mtime, reverse=True)
            old = [path for path in newest_first[keep:] if path.resolve() not in used]
            for path in old:
                shutil.rmtree(path)
            self._remove_orphans()
        return old

    def _remove_orphans(self) -> None:
        long_ago = time.time() - STALE_AFTER_S
        for path in self.bundles.glob(".new-*"):
            if path.stat().st_mtime < long_ago:
                shutil.rmtree(path)
        for path in self.blobs.glob("*"):
            if path.stat().st_nlink == 1:
                path.unlink()

    def _write(self, chunks: Sequence[Chunk], digest: str | None, size: int) -> Blob:
        descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=self.blobs)
        try:
            with ThreadPoolExecutor(1) as pool, os.fdopen(descriptor, "wb", buffering=0) as file:
                hashing = None if digest else pool.submit(_sha256, chunks)
                for piece in _pieces(chunks):
                    _write_all(file.fileno(), piece)
                os.fchmod(file.fileno(), 0o644)
                blob = self._blob(hashing.result() if hashing else str(digest), size)
            Path(temporary).replace(blob.path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return blob

    def _blob(self, digest: str, size: int) -> Blob:
        return Blob(digest, size, self.blobs / f"{digest}-{size}")

    @contextmanager
    def _lock(self, how: int) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("a") as file:
            fcntl.flock(file, how)
            yield


def _sha256(chunks: Iterable[Chunk]) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(chunks):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(chunks: Iterable[Chunk]) -> Iterator[memoryview]:
    for chunk in chunks:
        with memoryview(chunk) as view:
            for start in range(0, len(view), _PIECE_BYTES):
                with view[start : start + _PIECE_BYTES] as piece:
                    yield piece


def _write_all(descriptor: int, piece: memoryview) -> None:
    while len(piece):
        piece = piece[os.write(descriptor, piece) :]

"""The bundle folder: read, check, fingerprint, recorded requests. Runs in all processes, so no torch here."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

import tomli_w

from nbserve.bundle.markers import without_markers
from nbserve.errors import BundleError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]

FORMAT = 1
KEEP_GOLDEN = 50
VERSION_LENGTH = 12
HEAD = "nbserve.toml"
GOLDEN = "golden.jsonl"


class FileRecord(TypedDict):
    sha256: str
    bytes: int


class Manifest(TypedDict):
    """model/manifest.json: every linked file, where each object and tensor lies, and what the kernel saw."""

    files: dict[str, FileRecord]
    objects: dict[str, list[int]]
    tensors: list[dict[str, Any]]
    arrays: list[str]
    checks: list[dict[str, Any]]


@dataclass(frozen=True)
class Golden:
    """A request that was answered in the notebook, and its answer."""

    request_body: bytes
    content_type: str
    status: int
    answer_body: bytes
    answer_content_type: str


@dataclass(frozen=True)
class Bundle:
    """A folder that can be served. `handler` is `app:CLASS`, `imports` the modules worth importing early."""

    path: Path
    name: str
    version: str
    handler: str
    settings: dict[str, Any] = field(default_factory=dict)
    imports: list[str] = field(default_factory=list)
    provenance: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path | str) -> Bundle:
        """Read and validate: all files are there, none but the settings was changed. Weights are checked by size."""
        path = Path(path).absolute()
        head = _head(path)
        bundle = cls(
            path,
            **{key: _typed(path, head, key, str) for key in ("name", "version", "handler")},
            **{key: _typed(path, head, key, dict) for key in ("settings", "provenance")},
            imports=_typed(path, head, "imports", list),
        )
        if bundle.version != fingerprint(path, bundle.handler):
            raise BundleError(f"{path} was changed after it was written: serve the cell again instead of editing it")
        for name, record in bundle.manifest()["files"].items():
            _check_size(path, name, record)
        return bundle

    def manifest(self) -> Manifest:
        return read_manifest(self.path)

    def check(self) -> None:
        """Compare the content of every file with what was written; reads all weights."""
        Bundle.read(self.path)
        for name, record in self.manifest()["files"].items():
            if _sha256_of(self.path / name) != record["sha256"]:
                raise BundleError(f"{self.path / name} was changed or damaged: serve the cell again")

    def record(
        self, request_body: bytes, content_type: str, status: int, answer_body: bytes, answer_content_type: str
    ) -> None:
        """Keep a request with its answer; the newest 50 stay."""
        new = Golden(bytes(request_body), content_type, status, bytes(answer_body), answer_content_type)
        kept = [pair for pair in self.golden() if pair.request_body != new.request_body][-KEEP_GOLDEN + 1 :]
        write_atomically(self.path / GOLDEN, golden_text([*kept, new]))

    def golden(self) -> list[Golden]:
        """The recorded requests, oldest first."""
        file = self.path / GOLDEN
        return read_golden(file) if file.exists() else []

    def write_head(self) -> None:
        """Write nbserve.toml."""
        write_atomically(self.path / HEAD, self.head())

    def head(self) -> str:
        """The text of nbserve.toml."""
        head = {"format": FORMAT, **{key: value for key, value in asdict(self).items() if key != "path"}}
        tables = {key: head.pop(key) for key in ("settings", "provenance")}
        return tomli_w.dumps(head | tables)

    def with_settings(self, settings: dict[str, Any]) -> Bundle:
        """Write other settings into nbserve.toml, and nothing else; gives the bundle as it is then."""
        # Another kernel may have served the same content since it was read.
        provenance = _typed(self.path, _head(self.path), "provenance", dict)
        written = replace(self, settings=settings, provenance=provenance)
        written.write_head()
        return written


def fingerprint(path: Path, handler: str) -> str:
    """A hash of what decides the answers: code, local modules, model, requirements. Not settings, not records."""
    digest = hashlib.sha256(handler.encode())
    try:
        parts = [("app.py", without_markers((path / "app.py").read_text()).encode())]
        parts += [(name, (path / name).read_bytes()) for name in ("model/manifest.json", "requirements.txt")]
        parts += [(file.relative_to(path).as_posix(), file.read_bytes()) for file in _library(path)]
    except (FileNotFoundError, SyntaxError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is damaged: {error}") from None
    for name, content in parts:
        digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:VERSION_LENGTH]


def read_manifest(path: Path) -> Manifest:
    try:
        manifest: Manifest = json.loads((path / "model" / "manifest.json").read_text())
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} is damaged: model/manifest.json cannot be read ({error})") from None
    return manifest


def read_golden(file: Path) -> list[Golden]:
    """The requests and answers of a golden.jsonl, oldest first."""
    return [_from_json(line, file) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]


def golden_text(pairs: Iterable[Golden]) -> str:
    """The text of a golden.jsonl."""
    return "".join(json.dumps(_as_json(pair)) + "\n" for pair in pairs)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old or the new one, never a part."""
    descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _head(path: Path) -> dict[str, Any]:
    file = path / HEAD
    if not file.is_file():
        raise BundleError(f"{path} is not a bundle: it has no {HEAD}")
    try:
        head: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{file} is damaged: {error}") from None
    if head.get("format") != FORMAT:
        raise BundleError(
            f"{path} has format {head.get('format')!r}, this nbserve reads {FORMAT}: serve the cell again"
        )
    return head


def _typed(path: Path, head: Mapping[str, Any], key: str, kind: type) -> Any:
    if not isinstance(head.get(key), kind):
        raise BundleError(f"{path / HEAD} is damaged: {key} is {head.get(key)!r}, not a {kind.__name__}")
    return head[key]


def _check_size(path: Path, name: str, record: FileRecord) -> None:
    try:
        size = (path / name).stat().st_size
    except FileNotFoundError:
        raise BundleError(f"{path} is damaged: {name} is missing") from None
    if size != record["bytes"]:
        raise BundleError(f"{path} is damaged: {name} has {size} bytes, not {record['bytes']}")


def _library(path: Path) -> Iterator[Path]:
    files = (path / "lib").rglob("*") if (path / "lib").is_dir() else ()
    return iter(sorted(file for file in files if file.is_file() and "__pycache__" not in file.parts))


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(8 * 1024 * 1024):
            digest.update(piece)
    return digest.hexdigest()


def _as_json(pair: Golden) -> dict[str, Any]:
    return {key: _text(value) if isinstance(value, bytes) else value for key, value in asdict(pair).items()}


def _from_json(line: str, file: Path) -> Golden:
    try:
        fields: dict[str, Any] = json.loads(line)
        fields |= {key: _bytes(fields[key]) for key in ("request_body", "answer_body")}
        return Golden(**fields)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BundleError(f"{file} is damaged at {line[:60]!r}: remove that line") from None


def _text(body: bytes) -> dict[str, str]:
    try:
        return {"text": body.decode("utf-8")}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()}


def _bytes(value: dict[str, str]) -> bytes:
    return value["text"].encode() if "text" in value else base64.b64decode(value["base64"])

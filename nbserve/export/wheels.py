"""Packages that no index has, as wheels: the same bytes each time, and no network. Runs in the kernel or the CLI."""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.metadata
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib.metadata import Distribution, PackagePath
from pathlib import Path, PurePath
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import nbserve
from nbserve.errors import ExportError
from nbserve.export.requirements import SELF, Pin

# The oldest day that a zip file can name, and the same as pip's builds take it.
_DAY = (1980, 1, 1, 0, 0, 0)
_DAY_S = "315532800"
# What pip writes beside a wheel's own files.
_INSTALLERS = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"}
_BUILD_LIMIT_S = 600

Contents = Mapping[str, bytes]


def local_distributions(names: Collection[str]) -> list[Distribution]:
    """Those of these packages that were installed from a folder, a file or a repository, not from an index."""
    return [found for name in sorted(names) if (found := _installed(name)) is not None and _is_local(found)]


def notes(pins: Collection[Pin]) -> list[str]:
    """What should be known of these packages, as far as they are installed here."""
    found = {pin: installed for pin in pins if (installed := _installed(pin.name)) is not None}
    conda = sorted(pin.name for pin, installed in found.items() if _installer(installed) == "conda")
    other = [
        f"{pin.name} {pin.version} ({installed.version} here)"
        for pin, installed in found.items()
        if _public(installed.version) != _public(pin.version)
    ]
    texts = []
    if conda:
        texts.append(f"from conda here, from a package index in the image: {', '.join(conda)}")
    if other:
        texts.append(f"proven with other versions than those of the bundle, which the image has: {', '.join(other)}")
    if at_odds := list(_at_odds(pins, found)):
        texts.append(f"pip may refuse to install these together in the image: {'; '.join(at_odds)}")
    return texts


def _at_odds(pins: Collection[Pin], found: Mapping[Pin, Distribution]) -> Iterator[str]:
    """The packages that want another version of one than is pinned: a notebook lives with that, pip does not."""
    versions = {canonicalize_name(pin.name): pin.version for pin in pins}
    for pin, installed in found.items():
        for text in installed.requires or ():
            if "extra ==" in text:
                continue
            wanted = Requirement(text)
            version = versions.get(canonicalize_name(wanted.name))
            applies = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
            if version and applies and not wanted.specifier.contains(version, prereleases=True):
                yield f"{pin.name} {pin.version} needs {wanted.name}{wanted.specifier}, and {version} is pinned"


def pack(distribution: Distribution, folder: Path, on_progress: Callable[[str], None]) -> Pin:
    """Write it into the folder as a wheel."""
    name = distribution.metadata["Name"]
    on_progress(f"packing {name}, which comes from no package index")
    if canonicalize_name(name) == SELF and _is_editable(distribution):
        contents = {**_sources(Path(nbserve.__file__).parent), **_about(distribution)}
    elif _is_editable(distribution):
        contents = _built(distribution)
    else:
        contents = _recorded(distribution)
    file, data = wheel(contents)
    folder.mkdir(exist_ok=True)
    (folder / file).write_bytes(data)
    return Pin(name, file.split("-")[1], file)


def wheel(contents: Contents) -> tuple[str, bytes]:
    """The name and the bytes of a wheel of these files; its RECORD is made anew.

    Stored, not squeezed: what a compressor makes of the same bytes depends on its version.
    """
    about = next(path.partition("/")[0] for path in contents if path.endswith(".dist-info/WHEEL"))
    files = {path: data for path, data in sorted(contents.items()) if path != f"{about}/RECORD"}
    lines = [f"{_quoted(path)},sha256={_digest(data)},{len(data)}\n" for path, data in files.items()]
    files[f"{about}/RECORD"] = "".join([*lines, f"{about}/RECORD,,\n"]).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, data in files.items():
            info = zipfile.ZipInfo(path, _DAY)
            info.create_system, info.external_attr = 3, (0o100755 if "/scripts/" in path else 0o100644) << 16
            archive.writestr(info, data)
    return f"{about.removesuffix('.dist-info')}-{_tag(files[f'{about}/WHEEL'].decode())}.whl", buffer.getvalue()


@functools.cache
def _installed(name: str) -> Distribution | None:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _public(version: str) -> str:
    """Without what a build adds to it."""
    return version.partition("+")[0]


def _installer(distribution: Distribution) -> str:
    return (distribution.read_text("INSTALLER") or "").strip()


def _is_local(distribution: Distribution) -> bool:
    # conda leaves the folder in which it built a package in there. torch is too large to travel.
    is_indexed = _installer(distribution) == "conda" or canonicalize_name(distribution.metadata["Name"]) == "torch"
    return not is_indexed and distribution.read_text("direct_url.json") is not None


def _is_editable(distribution: Distribution) -> bool:
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    return bool(origin.get("dir_info", {}).get("editable"))


def _sources(package: Path) -> dict[str, bytes]:
    """A package as it lies there."""
    files = (path for path in package.rglob("*") if path.is_file() and not _is_fleeting(path.relative_to(package)))
    return {path.relative_to(package.parent).as_posix(): path.read_bytes() for path in files}


def _is_fleeting(path: PurePath) -> bool:
    return any(part == "__pycache__" or part.startswith(".") for part in path.parts) or path.suffix == ".pyc"


def _about(distribution: Distribution) -> dict[str, bytes]:
    """What dist-info says of it."""
    files = {str(file): file for file in distribution.files or () if ".dist-info" in file.parts[0]}
    return {path: _read(distribution, file) for path, file in files.items() if file.name not in _INSTALLERS}


def _recorded(distribution: Distribution) -> dict[str, bytes]:
    """All that was installed of it, back where a wheel has it."""
    contents: dict[str, bytes] = {}
    about = _about(distribution)
    data = f"{next(iter(about)).partition('.dist-info')[0]}.data"
    made = {entry.name for entry in distribution.entry_points if entry.group in ("console_scripts", "gui_scripts")}
    for file in distribution.files or ():
        if ".dist-info" in file.parts[0] or _is_fleeting(PurePath(*(part for part in file.parts if part != ".."))):
            continue
        if file.parts[0] != "..":
            contents[str(file)] = _read(distribution, file)
        elif file.parts[-2] != "bin":
            place = Path(os.path.normpath(str(distribution.locate_file(file)))).relative_to(sys.prefix)
            contents[f"{data}/data/{place.as_posix()}"] = _read(distribution, file)
        elif file.name not in made:
            # pip wrote its own interpreter into the first line; from this word it does so again.
            contents[f"{data}/scripts/{file.name}"] = re.sub(rb"\A#!.*python.*", b"#!python", _read(distribution, file))
    return {**contents, **about}


def _read(distribution: Distribution, file: PackagePath) -> bytes:
    try:
        return Path(str(distribution.locate_file(file))).read_bytes()
    except OSError as error:
        name = distribution.metadata["Name"]
        raise ExportError(f"{name} is not as it was installed ({error.strerror}: {file}): install it again") from None


def _built(distribution: Distribution) -> dict[str, bytes]:
    """What pip builds of an editable package's folder."""
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    source = unquote(urlsplit(origin["url"]).path)
    with tempfile.TemporaryDirectory() as folder:
        # The packages that build it come from an index; without one, those that are installed may do.
        first = _pip_wheel(source, folder)
        if first.returncode and _pip_wheel(source, folder, "--no-build-isolation").returncode:
            reason = (first.stderr.strip() or first.stdout.strip() or "pip says nothing").splitlines()[-1]
            name = distribution.metadata["Name"]
            raise ExportError(f"{name} is installed from {source}, and no wheel can be made of it: {reason}")
        (file,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(file) as archive:
            return {info.filename: archive.read(info) for info in archive.infolist() if not info.is_dir()}


def _pip_wheel(source: str, folder: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--no-deps", *options]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": _DAY_S}
    return subprocess.run(
        [*command, "--wheel-dir", folder, source],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_BUILD_LIMIT_S,
        check=False,
    )


def _tag(text: str) -> str:
    """The tags of a WHEEL file as its name has them: `py2.py3-none-any`."""
    tags = [line.partition(":")[2].strip().split("-") for line in text.splitlines() if line.startswith("Tag:")]
    return "-".join(".".join(sorted(set(parts))) for parts in zip(*tags, strict=True))


def _quoted(path: str) -> str:
    return f'"{path}"' if "," in path else path


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()

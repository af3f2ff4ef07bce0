"""`nbserve-gcc`: a C++ compiler that remembers: what it made once it gives again, also where there is no compiler.

A child of the worker, started by inductor for each piece of code: it imports nothing that takes time.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

# Inductor tells by the name what flags it takes.
NAME = "nbserve-gcc"
FOLDER = "NBSERVE_COMPILED"
RECORD = "NBSERVE_COMPILED_RECORD"
COMPILER = "g++"
# Where headers and libraries lie differs between machines that have the same ones: the folder's name vouches for those.
_PLACES = re.compile(r"-(I|L|isystem|iquote|Wl,-rpath)(.*)")
_QUOTED_FOLDER = re.compile(rb'"/[^"\n]*/')


def main() -> None:
    sys.exit(run(sys.argv[1:], os.environ))


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Compile, or give what was compiled; gives the exit code."""
    memory = Memory(Path(environment[FOLDER]), is_open=environment.get(RECORD) == "1")
    if (target := target_of(arguments)) is None:
        return _say(memory, arguments)
    kept = memory.find(key_of(arguments))
    if kept is not None:
        _place(kept, target)
        return 0
    # Without what is for debuggers, which names folders: the same source makes the same bytes.
    code = _compile([*arguments, "-g0", "-s"] if memory.is_open else arguments)
    if code == 0:
        memory.keep(key_of(arguments), target.read_bytes())
    return code


class Memory:
    """Files by their keys; `is_open` for more."""

    def __init__(self, folder: Path, *, is_open: bool) -> None:
        self._folder = folder
        self.is_open = is_open

    def find(self, key: str) -> Path | None:
        path = self._folder / key
        return path if path.is_file() else None

    def keep(self, key: str, content: bytes) -> None:
        if not self.is_open:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        # Several workers may keep the same at the same time.
        _write(self._folder / key, lambda part: part.write_bytes(content))


def target_of(arguments: Sequence[str]) -> Path | None:
    """The file that is to be made."""
    at = [index for index, argument in enumerate(arguments) if argument == "-o"]
    return Path(arguments[at[-1] + 1]) if at and at[-1] + 1 < len(arguments) else None


def key_of(arguments: Sequence[str]) -> str:
    """A hash of what decides what is made: flags and the content of files, not where they lie."""
    digest = hashlib.sha256()
    for part in _parts(arguments):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _parts(arguments: Sequence[str]) -> Iterator[bytes]:
    words = iter(arguments)
    for word in words:
        if word == "-o":
            next(words, None)
        elif place := _PLACES.fullmatch(word):
            if not place[2]:
                next(words, None)
        elif not word.startswith("-") and Path(word).is_file():
            content = Path(word).read_bytes()
            yield hashlib.sha256(_QUOTED_FOLDER.sub(b'"', content) if is_text(word) else content).digest()
        else:
            yield word.encode()


def is_text(path: str) -> bool:
    return path.endswith((".cpp", ".cc", ".c", ".h", ".hpp"))


def _say(memory: Memory, arguments: Sequence[str]) -> int:
    """What the compiler says of itself: inductor chooses flags by it."""
    kept = memory.find(key_of(arguments))
    if kept is not None:
        sys.stdout.write(kept.read_text())
        return 0
    if not has_compiler():
        sys.stdout.write("g++, as nbserve remembers it\n")
        return 0
    said = subprocess.run([COMPILER, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    sys.stdout.buffer.write(said.stdout)
    if said.returncode == 0:
        memory.keep(key_of(arguments), said.stdout)
    return said.returncode


def _compile(arguments: Sequence[str]) -> int:
    if has_compiler():
        return subprocess.run([COMPILER, *arguments], check=False).returncode
    sys.stderr.write("there is no g++ here, and this was not compiled before the bundle was shipped\n")
    return 1


def has_compiler() -> bool:
    return shutil.which(COMPILER) is not None


def _place(kept: Path, target: Path) -> None:
    """A copy; or a link, where code cannot be run from the target's folder (as in a container's /tmp)."""
    is_noexec = os.statvfs(target.parent).f_flag & getattr(os, "ST_NOEXEC", 0)
    _write(target, (lambda part: _link(part, kept)) if is_noexec else (lambda part: shutil.copyfile(kept, part)))


def _link(part: Path, kept: Path) -> None:
    part.unlink()
    part.symlink_to(kept)


def _write(path: Path, fill: Callable[[Path], object]) -> None:
    """Whole, or not at all."""
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    os.close(descriptor)
    part = Path(name)
    try:
        fill(part)
        if not part.is_symlink():
            part.chmod(0o644)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise

"""What inductor compiled before a bundle was shipped, for machines like the one that did. Runs in the worker."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch

from nbserve.worker.debug.hooks import log
from nbserve.worker.tuning import cxx

_CPUINFO = Path("/proc/cpuinfo")
# Of what Linux says of a processor, the sets of instructions that g++ -march=native may use.
_INSTRUCTIONS = re.compile(
    r"(a?sse|s?sse3|ssse3|avx|amx|bmi|fma|sha|xsave|vaes|gfni|vpclmul)\w*|sse4a|f16c|adx|aes|pclmulqdq|movbe|popcnt"
    r"|abm|rdrnd|rdrand|rdseed|rdpid|clflushopt|clwb|clzero|fsgsbase|prfchw|3dnowprefetch|fphp|asimd\w*|sve\w*|atomics"
)


def use(bundle: Path, device: str) -> None:
    """Have inductor's compiler remember, when the bundle has something for this machine, or is to get it."""
    programs = Path(sys.executable).parent
    if device.startswith("cuda") or "CXX" in os.environ or shutil.which(cxx.NAME, path=str(programs)) is None:
        return
    here = Kind.here()
    folder = here.folder(bundle / "cache") if os.environ.get(cxx.RECORD) == "1" else _shipped(bundle / "cache", here)
    if folder is None:
        return
    os.environ |= {
        cxx.FOLDER: str(folder),
        "CXX": cxx.NAME,
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        # They depend on where the compiler is, and are of no use where all is there.
        "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS": "0",
    }


class Kind(NamedTuple):
    """What compiled code depends on: the same torch, Python and processor, and a C library that is not older."""

    same: str
    libc: tuple[int, ...]

    @classmethod
    def here(cls) -> Kind:
        found = hashlib.sha256("\n".join(instructions()).encode()).hexdigest()[:8]
        kind = re.sub(r"[^a-z0-9]+", "", torch.backends.cpu.get_cpu_capability().lower())
        name = f"torch-{torch.__version__}-{sys.implementation.cache_tag}-{platform.machine()}-{kind}-{found}"
        return cls(name, _numbers(platform.libc_ver()[1]))

    @classmethod
    def of(cls, folder: Path) -> Kind:
        same, _, libc = folder.name.rpartition("-libc")
        return cls(same, _numbers(libc))

    def folder(self, cache: Path) -> Path:
        return cache / f"{self.same}-libc{'.'.join(map(str, self.libc))}"

    def runs(self, other: Kind) -> bool:
        """Whether this machine runs what was compiled on the other."""
        return self.same == other.same and self.libc >= other.libc


def _shipped(cache: Path, here: Kind) -> Path | None:
    """What came with the bundle for a machine like this one."""
    there = sorted(path for path in cache.iterdir() if path.is_dir()) if cache.is_dir() else []
    if found := next((path for path in there if here.runs(Kind.of(path))), None):
        log(f"it uses what was compiled before the bundle was shipped, for {found.name}")
    elif there:
        names = ", ".join(path.name for path in there)
        log(f"it compiles here: what came with the bundle is for {names}, and this is {here.folder(cache).name}")
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


def instructions() -> list[str]:
    """The sets of instructions that this processor has."""
    try:
        return sorted(_chosen(_CPUINFO.read_text().splitlines()))
    except OSError:
        return [platform.processor()]


def _chosen(lines: Iterable[str]) -> set[str]:
    line = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return {word for word in line.partition(":")[2].split() if _INSTRUCTIONS.fullmatch(word)}

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
    shipped, here = bundle / "cache", key()
    is_recorded = os.environ.get(cxx.RECORD) == "1"
    if device.startswith("cuda") or not (is_recorded or shipped.is_dir()):
        return
    if not is_recorded and not (shipped / here).is_dir():
        others = ", ".join(sorted(path.name for path in shipped.iterdir()))
        log(f"it is compiled here: what came with the bundle is for {others}, and this is {here}")
        return
    programs = Path(sys.executable).parent
    if "CXX" in os.environ or shutil.which(cxx.NAME, path=str(programs)) is None:
        return
    os.environ |= {
        cxx.FOLDER: str(shipped / here),
        "CXX": cxx.NAME,
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        # They depend on where the compiler is, and are of no use where all is there.
        "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS": "0",
    }
    if not is_recorded:
        log(f"it uses what was compiled before the bundle was shipped, for {here}")


def key() -> str:
    """Torch, Python and processor: what is compiled runs where they are the same."""
    found = hashlib.sha256("\n".join(instructions()).encode()).hexdigest()[:8]
    kind = re.sub(r"[^a-z0-9]+", "", torch.backends.cpu.get_cpu_capability().lower())
    return f"torch-{torch.__version__}-{sys.implementation.cache_tag}-{platform.machine()}-{kind}-{found}"


def instructions() -> list[str]:
    """The sets of instructions that this processor has."""
    try:
        return sorted(_chosen(_CPUINFO.read_text().splitlines()))
    except OSError:
        return [platform.processor()]


def _chosen(lines: Iterable[str]) -> set[str]:
    line = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return {word for word in line.partition(":")[2].split() if _INSTRUCTIONS.fullmatch(word)}

"""From a bundle's pins to those of an image: torch from its index, CUDA only with a GPU, wheels for the rest. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from packaging.utils import canonicalize_name

TORCH_INDEX = "https://download.pytorch.org/whl"
SELF = "nbserve-torch"

# What a build of torch adds to its version, and the packages that are built along with it.
_BUILD = re.compile(r"\+(?P<build>cpu|cu\d+|rocm[\d.]+|xpu)\b")
# What torch needs for CUDA. nvidia-ml-py only reads what a driver says, and does so without one.
_CUDA = re.compile(r"(nvidia|cuda)-(?!ml-py)|(pytorch-)?triton(-rocm|-xpu)?$")


@dataclass(frozen=True)
class Pin:
    """One package of the image. `wheel` is its file in wheels/, for one that no index has."""

    name: str
    version: str
    wheel: str | None = None

    @property
    def line(self) -> str:
        return f"./wheels/{self.wheel}" if self.wheel else f"{self.name}=={self.version}"


@dataclass(frozen=True)
class Lock:
    """All packages of the image. `index_url` is where torch comes from ("": as pip is configured)."""

    pins: tuple[Pin, ...]
    torch: str
    index_url: str
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return "".join(f"{pin.line}\n" for pin in self.pins)


def lock(
    requirements: str,
    *,
    is_gpu: bool,
    index_url: str | None = None,
    wheels: Mapping[str, Pin] | None = None,
    imports: Collection[str] = (),
) -> Lock:
    """The lock of these `NAME==VERSION` lines.

    `wheels` are the packages that travel as a file, by canonical name: they take the place of their pins. `imports` are
    the distributions that the handler itself imports, which stay even where torch alone would not need them.
    """
    pins: dict[str, Pin] = {canonicalize_name(pin.name): pin for pin in map(_pin, requirements.splitlines())}
    pins |= {canonicalize_name(name): pin for name, pin in (wheels or {}).items()}
    built = pins["torch"].version
    index = torch_index(built, is_gpu) if index_url is None else index_url
    if not is_gpu or index != torch_index(built, is_gpu) or not _has_cuda(built):
        own = {canonicalize_name(name) for name in imports}
        pins = {name: pin for name, pin in pins.items() if name in own or not _CUDA.match(name)}
    ordered = tuple(_public(pins[name]) for name in sorted(pins))
    return Lock(ordered, built.partition("+")[0], index, tuple(_notes(ordered)))


def torch_index(version: str, is_gpu: bool) -> str:
    """The index that has this torch for such an image; "" is pip's own, whose torch is for CUDA."""
    nightly = "/nightly" if ".dev" in version else ""
    found = _BUILD.search(version)
    build = found["build"] if found else ""
    if not is_gpu:
        return f"{TORCH_INDEX}{nightly}/cpu"
    return f"{TORCH_INDEX}{nightly}/{build}" if build not in ("", "cpu") else ""


def _has_cuda(version: str) -> bool:
    found = _BUILD.search(version)
    return found is None or found["build"] != "cpu"


def _pin(line: str) -> Pin:
    name, _, version = line.partition("==")
    return Pin(name, version)


def _public(pin: Pin) -> Pin:
    """Without what its build adds to the version: the index decides on the build."""
    return pin if pin.wheel else Pin(pin.name, _BUILD.sub("", pin.version))


def _notes(pins: Collection[Pin]) -> list[str]:
    local = [f"{pin.name} {pin.version}" for pin in pins if "+" in pin.version and not pin.wheel]
    if not local:
        return []
    return [f"{', '.join(local)}: a local version, which no public package index has; give --index-url one that has it"]

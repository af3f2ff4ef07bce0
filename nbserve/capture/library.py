"""Local modules that a handler imports, copied into the bundle's lib/. Runs in the kernel."""

from __future__ import annotations

import ast
import functools
import importlib.util
import shutil
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from nbserve.errors import CaptureError

_LEAVE_OUT = shutil.ignore_patterns("__pycache__", ".*", "*.pyc", "*.egg-info")


@functools.cache
def _installed() -> tuple[Path, ...]:
    named = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return tuple(Path(place).resolve() for place in {*named, *site.getsitepackages(), site.getusersitepackages()})


def roots(modules: Iterable[str]) -> list[str]:
    """Top-level names, less the standard library's and nbserve itself."""
    names = {module.partition(".")[0] for module in modules}
    return sorted(names - sys.stdlib_module_names - {"", "nbserve", "__main__", "builtins", "app"})


def split(modules: Iterable[str]) -> tuple[list[str], dict[str, Path]]:
    """(installed roots, local ones with their place), with all that the local ones import in turn."""
    installed: set[str] = set()
    local: dict[str, Path] = {}
    waiting = roots(modules)
    while waiting:
        name = waiting.pop()
        if name in installed or name in local:
            continue
        place = _place(name)
        if place is None or _is_installed(place):
            installed.add(name)
        else:
            local[name] = place
            waiting += roots(imported_by(place))
    return sorted(name for name in installed if _place(name) is not None), local


def copy(local: dict[str, Path], target: Path) -> None:
    """Copy modules and packages as they are on disk."""
    for name, place in sorted(local.items()):
        if name == "app":
            raise CaptureError("a local module is named `app`, as the bundle's own is: give it another name")
        target.mkdir(exist_ok=True)
        if place.is_dir():
            shutil.copytree(place, target / name, ignore=_LEAVE_OUT)
        else:
            shutil.copyfile(place, target / place.name)


def imported_by(place: Path) -> Iterator[str]:
    """The modules that a file, or any file of a package, imports by absolute name."""
    for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        if file.suffix == ".py":
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
                if isinstance(node, ast.Import):
                    yield from (alias.name for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                    yield node.module


def _place(name: str) -> Path | None:
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    if module is not None and spec is None:
        file = getattr(module, "__file__", None)
        return Path(file) if file else None
    try:
        spec = spec or importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin) if spec.has_location and spec.origin else None


def _is_installed(place: Path) -> bool:
    resolved = place.resolve()
    return any(resolved.is_relative_to(folder) for folder in _installed())

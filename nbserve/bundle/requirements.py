"""Exact pins of everything a bundle imports, with all that those need. Runs in the kernel; no torch here."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterable, Iterator

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ALWAYS = "nbserve-torch"


def requirements(modules: Iterable[str]) -> str:
    """The text of requirements.txt for these top-level modules; nbserve brings torch and numpy."""
    names = {ALWAYS, *(dist for module in modules for dist in distributions_of(module))}
    pins = {pin for name in names for pin in _closure(name)}
    return "".join(f"{pin}\n" for pin in sorted(pins, key=str.lower))


def distributions_of(module: str) -> tuple[str, ...]:
    """The distributions that install this top-level module. Most have its name: only then is the rest not read."""
    if _provides(module, module):
        return (module,)
    return tuple(_providers().get(module, ()))


@functools.cache
def _provides(name: str, module: str) -> bool:
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    listed = distribution.read_text("top_level.txt")
    if listed is not None:
        return module in listed.split()
    record = distribution.read_text("RECORD") or ""
    return f"\n{module}/" in f"\n{record}" or f"\n{module}.py," in f"\n{record}"


@functools.cache
def _providers() -> dict[str, list[str]]:
    return {module: sorted(set(names)) for module, names in importlib.metadata.packages_distributions().items()}


@functools.cache
def _closure(name: str) -> frozenset[str]:
    pins: dict[str, str] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(name, frozenset())]
    done: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        item = waiting.pop()
        if item in done:
            continue
        done.add(item)
        key, extras = item
        if (distribution := _distribution(key)) is not None:
            pins[canonicalize_name(key)] = f"{distribution.metadata['Name']}=={distribution.version}"
            waiting += _needed_by(key, extras)
    return frozenset(pins.values())


def _needed_by(name: str, extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    for requirement in _requires(name):
        wanted = [{"extra": extra} for extra in (extras or {""})]
        if requirement.marker is None or any(requirement.marker.evaluate(extra) for extra in wanted):
            yield requirement.name, frozenset(requirement.extras)


@functools.cache
def _requires(name: str) -> tuple[Requirement, ...]:
    distribution = _distribution(name)
    return tuple(Requirement(text) for text in (distribution.requires if distribution else None) or ())


@functools.cache
def _distribution(name: str) -> importlib.metadata.Distribution | None:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None

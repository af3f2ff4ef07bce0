"""Exact pins of everything a bundle imports, with all that those need. Runs in the kernel; no torch here."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from packaging.requirements import Requirement

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
    pins: set[str] = set()
    waiting = [_Wanted(name, frozenset())]
    done: set[_Wanted] = set()
    while waiting:
        wanted = waiting.pop()
        if wanted in done:
            continue
        done.add(wanted)
        if (found := _installed(wanted.name)) is not None:
            pins.add(found.pin)
            waiting += _needed_by(found, wanted.extras)
    return frozenset(pins)


class _Wanted(NamedTuple):
    name: str
    extras: frozenset[str]


class _Installed(NamedTuple):
    pin: str
    requires: tuple[str, ...]


def _needed_by(found: _Installed, extras: frozenset[str]) -> Iterator[_Wanted]:
    for text in found.requires:
        # Most requirements are those of extras that nobody wants; parsing them takes most of the time.
        if not extras and "extra ==" in text:
            continue
        requirement = Requirement(text)
        environments = [{"extra": extra} for extra in (extras or {""})]
        if requirement.marker is None or any(requirement.marker.evaluate(each) for each in environments):
            yield _Wanted(requirement.name, frozenset(requirement.extras))


@functools.cache
def _installed(name: str) -> _Installed | None:
    try:
        metadata = importlib.metadata.distribution(name).metadata
    except importlib.metadata.PackageNotFoundError:
        return None
    return _Installed(f"{metadata['Name']}=={metadata['Version']}", tuple(metadata.get_all("Requires-Dist") or ()))

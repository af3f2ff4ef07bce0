"""Colours of stages and of kinds of operators, as in the viewer: both read one file. Pure; kernel or terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbserve.trace.model import CATEGORIES, Events


@dataclass(frozen=True)
class Kind:
    """A stage or a family of operators: its name, what people call it, and its colour on white."""

    name: str
    label: str
    colour: str


@cache
def stages() -> Sequence[Kind]:
    """The stages of a request, in their order."""
    return [Kind(stage["name"], stage["label"], stage["light"]) for stage in _look()["stages"]]


@cache
def families() -> Sequence[Kind]:
    """The families of operators."""
    return [Kind(family["name"], family["label"], family["light"]) for family in _look()["families"]]


def families_of(events: Events) -> NDArray[np.int64]:
    """The family of each event, as an index into `families()`."""
    place = {family.name: i for i, family in enumerate(families())}
    of_category = np.array([place.get(_look()["categories"].get(category, ""), -1) for category in CATEGORIES])
    of_name = np.array([place[family_of(name)] for name in events.names] or [0])
    by_category = of_category[events.category]
    return np.where(by_category >= 0, by_category, of_name[events.name])


def family_of(name: str) -> str:
    """The family of an operator, kernel or launch, by its name."""
    for family, pattern in _patterns():
        if pattern.search(name):
            return family
    return "other"


@cache
def _patterns() -> Sequence[tuple[str, re.Pattern[str]]]:
    found = [(family["name"], family["pattern"]) for family in _look()["families"] if family["pattern"]]
    return [(name, re.compile(pattern, re.IGNORECASE)) for name, pattern in found]


@cache
def _look() -> dict[str, Any]:
    look: dict[str, Any] = json.loads(files("nbserve.trace").joinpath("static/look.json").read_text(encoding="utf-8"))
    return look

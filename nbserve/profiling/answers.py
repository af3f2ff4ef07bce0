"""How far two lots of answers are apart, number by number. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import orjson

from nbserve.profiling.requests import Reply


@dataclass(frozen=True)
class Difference:
    """The largest difference of two numbers in the same place, as it is and by their size; other ones in words."""

    largest: float = 0.0
    largest_relative: float = 0.0
    others: tuple[str, ...] = ()

    def __or__(self, other: Difference) -> Difference:
        return Difference(
            max(self.largest, other.largest),
            max(self.largest_relative, other.largest_relative),
            tuple(dict.fromkeys((*self.others, *other.others))),
        )


def difference(before: Sequence[Reply], after: Sequence[Reply]) -> Difference:
    """Of the answers to the same requests."""
    found = Difference()
    for one, other in zip(before, after, strict=True):
        found |= _of_replies(one, other)
    return found


def _of_replies(one: Reply, other: Reply) -> Difference:
    if one.status != other.status:
        return Difference(others=(f"status {other.status} instead of {one.status}",))
    if one.body == other.body:
        return Difference()
    if not all(reply.content_type.startswith("application/json") for reply in (one, other)):
        return Difference(others=("other texts or bytes",))
    try:
        return _of_values(orjson.loads(one.body), orjson.loads(other.body))
    except orjson.JSONDecodeError:
        return Difference(others=("other texts or bytes",))


def _of_values(one: Any, other: Any) -> Difference:
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return Difference(others=("other keys",))
        return _of_lists(list(one.values()), [other[key] for key in one])
    if isinstance(one, list) and isinstance(other, list):
        return _of_lists(one, other)
    if _is_number(one) and _is_number(other):
        return _of_numbers([one], [other])
    return Difference() if one == other else Difference(others=(_other(one, other),))


def _of_lists(one: list[Any], other: list[Any]) -> Difference:
    if len(one) != len(other):
        return Difference(others=(f"other lengths ({len(other)} instead of {len(one)})",))
    if all(map(_is_number, one)) and all(map(_is_number, other)):
        return _of_numbers(one, other)
    found = Difference()
    for first, second in zip_longest(one, other):
        found |= _of_values(first, second)
    return found


def _of_numbers(one: Sequence[float], other: Sequence[float]) -> Difference:
    if not one:
        return Difference()
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    apart = np.abs(first - second)
    # Against the largest of its neighbours: a number near zero is no measure.
    scale = max(float(np.abs(first).max()), float(np.abs(second).max()))
    largest = float(apart.max())
    return Difference(largest, largest / scale if scale else 0.0)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _other(one: Any, other: Any) -> str:
    if type(one) is not type(other):
        return f"{type(other).__name__} instead of {type(one).__name__}"
    return f"{_short(other)} instead of {_short(one)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 30 else text[:29] + "…"

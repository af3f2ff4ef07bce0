"""Where a received answer differs from the expected one. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from nbserve.errors import ConfigError

SHOWN = 60
MOST_COUNTED = 1000
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
# Nothing that JSON can say is equal to it.
_MISSING = object()


class Received(NamedTuple):
    """An answer as it came."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True)
class Tolerance:
    """How far two numbers may be apart; whole numbers, texts and truth values may not.

    `relative` is a share of the larger one, `absolute` the same for all. In a list of numbers also `of_largest`, a
    share of the largest one, is let pass: rounding leaves that much even where sums come out near zero. The defaults
    let float32 on another machine pass (some 1e-5 of the largest), TF32 too (1e-3), but no weights of eight bits.
    `ignore` names places that are not compared, as a difference names them: `$.id`, and `[*]` for any number of a list.
    """

    relative: float = 1e-3
    absolute: float = 1e-5
    of_largest: float = 1e-5
    ignore: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for place in self.ignore:
            if not place.startswith("$"):
                raise ConfigError(f"{place!r} is no place of an answer to ignore; one is $.{place.lstrip('.')}")

    def allows(self, one: float, other: float, largest: float = 0.0) -> bool:
        if one == other or (math.isnan(one) and math.isnan(other)):
            return True
        if not (math.isfinite(one) and math.isfinite(other)):
            return False
        within = max(self.absolute, self.relative * max(abs(one), abs(other)), self.of_largest * largest)
        return abs(one - other) <= within

    def ignores(self, place: str) -> bool:
        return bool(self.ignore) and (place in self.ignore or re.sub(r"\[\d+\]", "[*]", place) in self.ignore)

    @classmethod
    def of_dtype(cls, dtype: str) -> Tolerance:
        """What fits a model that computes in another type than float32."""
        # Some rounding steps of that type: 2**-8 and 2**-11.
        wide = {"bfloat16": cls(3e-2, 1e-3, 1e-2), "float16": cls(5e-3, 1e-4, 1e-3)}
        return wide.get(dtype, cls())


FLOAT32 = Tolerance()


@dataclass(frozen=True)
class Difference:
    """The first place in which two answers differ, and in how many others they do too."""

    place: str
    expected: str
    received: str
    others: int = 0

    def __str__(self) -> str:
        text = f"{self.place}: expected {self.expected}, got {self.received}"
        if not self.others:
            return text
        more = f"{self.others} or more" if self.others >= MOST_COUNTED else str(self.others)
        return f"{text} ({more} other{'s' * (self.others > 1)} differ{'s' * (self.others == 1)})"


def difference(expected: Received, received: Received, tolerance: Tolerance = FLOAT32) -> Difference | None:
    """The first difference: of the status, then the media type, then the body. None where there is none."""
    if expected.status != received.status:
        said = f" ({error_text(received.body)})" if received.status >= 400 and received.body else ""
        return Difference("status", str(expected.status), f"{received.status}{said}")
    kinds = media_type(expected.content_type), media_type(received.content_type)
    if kinds[0] != kinds[1]:
        return Difference("content type", kinds[0] or "none", kinds[1] or "none")
    if expected.body == received.body:
        return None
    if _is_json(kinds[0]):
        try:
            return _of_json(json.loads(expected.body), json.loads(received.body), tolerance)
        except (ValueError, RecursionError):
            pass  # One of them is no JSON, whatever it says: only its bytes can be compared.
    return _of_bytes(expected.body, received.body)


def media_type(content_type: str) -> str:
    """A content type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def shown(body: bytes) -> str:
    """A body in a few words."""
    text = " ".join(body[: 4 * SHOWN].decode("utf-8", "replace").split())
    if not text[:SHOWN].isprintable() or "\N{REPLACEMENT CHARACTER}" in text[:SHOWN]:
        text = ""
    return _cut(text) or (f"{len(body)} bytes" if body else "an empty body")


def error_text(body: bytes) -> str:
    """What an answer that is an error says: the message of nbserve's own, else the body."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return shown(body)


def _is_json(kind: str) -> bool:
    return kind == "application/json" or kind.endswith("+json")


def _of_json(expected: Any, received: Any, tolerance: Tolerance) -> Difference | None:
    found = _places(expected, received, "$", 0.0, tolerance)
    first = next(found, None)
    if first is None:
        return None
    others = sum(1 for _, _ in zip(found, range(MOST_COUNTED), strict=False))
    return Difference(first.place, first.expected, first.received, others)


def _places(one: Any, other: Any, place: str, largest: float, tolerance: Tolerance) -> Iterator[Difference]:
    """Each place where two values differ."""
    if tolerance.ignores(place):
        return
    if isinstance(one, dict) and isinstance(other, dict):
        yield from _of_objects(one, other, place, tolerance)
    elif isinstance(one, list) and isinstance(other, list):
        yield from _of_lists(one, other, place, tolerance)
    elif not _is_same(one, other, largest, tolerance):
        yield Difference(place, _words(one), _words(other))


def _of_objects(one: dict[str, Any], other: dict[str, Any], place: str, tolerance: Tolerance) -> Iterator[Difference]:
    for key in [*one, *(key for key in other if key not in one)]:
        inner = f"{place}.{key}" if _NAME.fullmatch(key) else f"{place}[{json.dumps(key, ensure_ascii=False)}]"
        yield from _places(one.get(key, _MISSING), other.get(key, _MISSING), inner, 0.0, tolerance)


def _of_lists(one: list[Any], other: list[Any], place: str, tolerance: Tolerance) -> Iterator[Difference]:
    if len(one) != len(other):
        yield Difference(place, f"a list of {len(one)}", f"one of {len(other)}")
        return
    largest = max((abs(number) for number in map(_float, [*one, *other]) if math.isfinite(number)), default=0.0)
    for index, (first, second) in enumerate(zip(one, other, strict=True)):
        yield from _places(first, second, f"{place}[{index}]", largest, tolerance)


def _is_same(one: Any, other: Any, largest: float, tolerance: Tolerance) -> bool:
    if isinstance(one, float) or isinstance(other, float):
        # 2.0 may be written as 2.
        both = _is_number(one) and _is_number(other)
        return both and tolerance.allows(_float(one), _float(other), largest)
    return type(one) is type(other) and bool(one == other)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _float(value: Any) -> float:
    """The number; NaN for what is none."""
    if not _is_number(value):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _words(value: Any) -> str:
    return "nothing" if value is _MISSING else _cut(json.dumps(value, ensure_ascii=False))


def _of_bytes(one: bytes, other: bytes) -> Difference:
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    # What lies before tells a reader where it is.
    begin = max(0, at - SHOWN // 4)
    before = "…" if begin else ""
    texts = [f"{before}{shown(body[begin:])}" if len(body) > begin else f"{before}its end" for body in (one, other)]
    if texts[0] == texts[1]:
        texts = [f"{body[at : at + 8].hex(' ') or 'its end'}" for body in (one, other)]
    return Difference(f"byte {at}", texts[0], texts[1])


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"

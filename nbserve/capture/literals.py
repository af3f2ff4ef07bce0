"""Plain values as Python source. Runs in the kernel."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

LONGEST = 4000


def literal(value: Any) -> str | None:
    """Source that makes an equal value, or None for what is not plain or too long to read."""
    text = _text(value, 0)
    return text if text is not None and len(text) <= LONGEST else None


def _text(value: Any, depth: int) -> str | None:
    kind = type(value)
    if kind in (int, bool, str, bytes) or value is None or value is Ellipsis:
        return repr(value) if kind not in (str, bytes) or len(value) <= LONGEST else None
    if kind is float:
        return repr(value) if math.isfinite(value) else f'float("{value}")'
    if kind is complex:
        return f"complex({_text(value.real, 0)}, {_text(value.imag, 0)})"
    if kind in (list, tuple, dict, set, frozenset) and depth < 8 and len(value) <= LONGEST:
        return _container(value, depth + 1)
    return None


def _container(value: Any, depth: int) -> str | None:
    kind = type(value)
    if kind is dict:
        pairs = [_joined([_text(key, depth), _text(item, depth)], ": ") for key, item in value.items()]
        return _wrapped("{", pairs, "}")
    parts = [_text(part, depth) for part in value]
    if kind is list:
        return _wrapped("[", parts, "]")
    if kind is tuple:
        return _wrapped("(", parts, ",)" if len(parts) == 1 else ")")
    # Sorted, as the order of a set of texts changes from kernel to kernel.
    ordered = None if None in parts else sorted(part for part in parts if part is not None)
    if ordered is None:
        return None
    if kind is frozenset:
        return _wrapped("frozenset([", ordered, "])")
    return _wrapped("{", ordered, "}") if ordered else "set()"


def _wrapped(opening: str, parts: Iterable[str | None], closing: str) -> str | None:
    inside = _joined(parts, ", ")
    return None if inside is None else f"{opening}{inside}{closing}"


def _joined(parts: Iterable[str | None], by: str) -> str | None:
    known = list(parts)
    return None if None in known else by.join(part for part in known if part is not None)

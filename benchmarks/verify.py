"""Does a server answer right? Only one that does is timed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson

from benchmarks.processes import post

TOLERANCE = 1e-3


def check(port: int, path: str, content_type: str, bodies: Sequence[bytes], expected: Sequence[Any]) -> str | None:
    """Sends all bodies at once, so that they meet in batches; the first wrong answer as a text, or None."""
    with ThreadPoolExecutor(len(bodies)) as senders:
        answers = senders.map(lambda body: post(port, path, body, content_type), bodies)
        for index, ((status, answer), right) in enumerate(zip(answers, expected, strict=True)):
            if status != 200:
                return f"request {index}: status {status}: {answer[:120]!r}"
            if not same(_decoded(answer), right):
                return f"request {index}: answered {answer[:120]!r}, right is {str(right)[:120]}"
    return None


def same(answer: Any, right: Any) -> bool:
    """Equal, floats within TOLERANCE (batches of other sizes sum in another order)."""
    if isinstance(right, list) and isinstance(answer, list) and len(answer) == len(right):
        return all(same(a, b) for a, b in zip(answer, right, strict=True))
    if isinstance(right, float) and isinstance(answer, float | int):
        return math.isclose(answer, right, abs_tol=TOLERANCE, rel_tol=TOLERANCE)
    return bool(answer == right)


def _decoded(answer: bytes) -> Any:
    try:
        return orjson.loads(answer)
    except orjson.JSONDecodeError:
        return answer

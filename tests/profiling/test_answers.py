"""How far answers are apart."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from nbserve.profiling.answers import Difference, difference
from nbserve.profiling.requests import Reply


def reply(value: Any, status: int = 200) -> Reply:
    return Reply(status, "application/json", orjson.dumps(value))


def apart(one: Any, other: Any) -> Difference:
    return difference([reply(one)], [reply(other)])


@pytest.mark.parametrize(
    ("one", "other", "largest", "relative"),
    [
        (1.0, 1.5, 0.5, 1 / 3),
        ([1, 2, 4], [1, 2, 3], 1, 1 / 4),
        ([[1.0, 2.0], [3.0, 8.0]], [[1.0, 2.0], [3.0, 6.0]], 2, 1 / 4),
        ({"a": [1.0], "b": "x"}, {"b": "x", "a": [1.25]}, 0.25, 0.2),
        ([0.0, 100.0], [0.001, 100.0], 0.001, 0.00001),
        ([], [], 0, 0),
        ([0.0], [-0.0], 0, 0),
    ],
)
def test_numbers_are_compared_one_by_one(one, other, largest, relative):
    found = apart(one, other)
    assert (found.largest, found.largest_relative, found.others) == (
        pytest.approx(largest),
        pytest.approx(relative),
        (),
    )


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ([1, 2], [1, 2, 3], "other lengths (3 instead of 2)"),
        ({"a": 1}, {"b": 1}, "other keys"),
        ("cat", "dog", "'dog' instead of 'cat'"),
        (1, "1", "str instead of int"),
        ([True], [False], "False instead of True"),
        ([None], [1.5], "float instead of NoneType"),
    ],
)
def test_other_differences_are_said(one, other, said):
    assert apart(one, other).others == (said,)


def test_bytes_and_statuses_are_compared_too():
    raw = [Reply(200, "application/octet-stream", data) for data in (b"a", b"b")]
    assert difference(raw[:1], raw[:1]) == Difference()
    assert difference(raw[:1], raw[1:]).others == ("other texts or bytes",)
    assert difference([reply(1)], [reply(1, 500)]).others == ("status 500 instead of 200",)


def test_the_largest_of_all_answers_counts():
    ones, others = [reply([1.0]), reply([2.0]), reply("a")], [reply([1.5]), reply([2.1]), reply("b")]
    assert difference(ones, others) == Difference(0.5, pytest.approx(1 / 3), ("'b' instead of 'a'",))

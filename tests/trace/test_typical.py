"""Means that a few slow ones do not change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbserve.trace.rules.gpu import covered_ns
from nbserve.trace.rules.typical import by_group, midmean


def test_one_slow_one_of_four_does_not_count() -> None:
    assert midmean([2.0, 1000.0, 3.0, 1.0]) == 2.5


@pytest.mark.parametrize(("values", "mean"), [([], 0.0), ([4.0], 4.0), ([1.0, 3.0], 2.0), ([1.0, 2.0, 9.0], 4.0)])
def test_few_all_count(values: list[float], mean: float) -> None:
    assert midmean(values) == mean


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 10**12)), max_size=60))
def test_groups_have_the_midmean_of_their_values(pairs: list[tuple[int, int]]) -> None:
    group = np.array([number for number, _ in pairs], np.int64)
    found = by_group(np.array([value for _, value in pairs], np.int64), group)
    for i, number in enumerate(group.tolist()):
        assert found[i] == pytest.approx(midmean(value for other, value in pairs if other == number))


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=20))
def test_intervals_that_overlap_count_once(intervals: list[tuple[int, int]]) -> None:
    start = np.array([first for first, _ in intervals], np.int64)
    end = start + np.array([length for _, length in intervals], np.int64)
    covered = {at for first, length in intervals for at in range(first, first + length)}
    assert covered_ns(start, end) == len(covered)

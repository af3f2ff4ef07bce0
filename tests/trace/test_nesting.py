"""How events enclose each other."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nbserve.trace.nesting import nest, order


def nested(*intervals: tuple[int, int, int]) -> tuple[list[int], list[int], list[int]]:
    """Parents, depths and self times of (track, start, end) that are in order."""
    track, start, end = (np.array(column) for column in zip(*intervals, strict=True))
    found = nest(track.astype(np.int16), start, end - start)
    return found.parent.tolist(), found.depth.tolist(), found.self_ns.tolist()


def test_inner_events_are_taken_from_the_outer_one() -> None:
    assert nested((0, 0, 10), (0, 1, 4), (0, 2, 3), (0, 5, 6)) == ([-1, 0, 1, 0], [0, 1, 2, 1], [6, 2, 1, 1])


def test_what_begins_at_the_end_is_no_child() -> None:
    assert nested((0, 0, 5), (0, 5, 8)) == ([-1, -1], [0, 0], [5, 3])


def test_what_only_overlaps_is_no_child() -> None:
    assert nested((0, 0, 5), (0, 3, 8), (0, 4, 5)) == ([-1, -1, 1], [0, 0, 1], [5, 4, 1])


def test_tracks_do_not_mix() -> None:
    assert nested((0, 0, 10), (1, 1, 2)) == ([-1, -1], [0, 0], [10, 1])


def test_order_has_outer_events_first() -> None:
    track = np.array([1, 0, 0, 0], np.int16)
    start, duration = np.array([0, 5, 5, 1]), np.array([1, 1, 9, 2])
    assert order(track, start, duration).tolist() == [3, 2, 1, 0]


def test_no_events_are_nothing() -> None:
    empty = np.zeros(0, np.int64)
    assert len(nest(empty.astype(np.int16), empty, empty).parent) == 0


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(0, 30)), max_size=40))
def test_self_times_are_never_less_than_nothing_and_parents_enclose(events: list[tuple[int, int, int]]) -> None:
    columns = [np.array(column, np.int64) for column in zip(*events, strict=True)] or [np.zeros(0, np.int64)] * 3
    track, start, duration = columns[0].astype(np.int16), columns[1], columns[2]
    ranked = order(track, start, duration)
    track, start, duration = track[ranked], start[ranked], duration[ranked]
    found = nest(track, start, duration)
    assert (found.self_ns >= 0).all()
    assert found.self_ns.sum() == duration[found.parent < 0].sum()
    for i, parent in enumerate(found.parent.tolist()):
        if parent >= 0:
            assert parent < i
            assert track[parent] == track[i]
            assert start[parent] <= start[i]
            assert start[i] + duration[i] <= start[parent] + duration[parent]
            assert found.depth[i] == found.depth[parent] + 1

"""Samples of a stack, with a clock of the test's own."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import pytest

from nbserve.worker.profile.sampler import Sampler

MS = 1_000_000


class FakeTime:
    """The monotonic clock, which stands still unless told otherwise."""

    def __init__(self) -> None:
        self.now_ns = 1_000 * MS

    def monotonic_ns(self) -> int:
        return self.now_ns


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(time, "monotonic_ns", fake.monotonic_ns)
    return fake


def root(inner: Callable[[Sampler], None], sampler: Sampler) -> None:
    """What the worker runs a handler in."""
    inner(sampler)


def fast(sampler: Sampler) -> None:
    sampler.take(sys._getframe())


def slow(sampler: Sampler) -> None:
    sampler.take(sys._getframe())


def outer(sampler: Sampler) -> None:
    fast(sampler)


@pytest.fixture
def sampler() -> Sampler:
    return Sampler([root.__code__])


def milliseconds(sampler: Sampler) -> dict[str, float]:
    return {stack["frames"][-1][0]: stack["ms"] for stack in sampler.result()["stacks"]}


def test_a_sample_counts_the_time_since_the_one_before(fake_time: FakeTime, sampler: Sampler) -> None:
    sampler.clock.begin()
    for function, passed_ms in ((fast, 5), (slow, 60), (fast, 5)):
        fake_time.now_ns += passed_ms * MS
        root(function, sampler)
    sampler.clock.end()
    assert milliseconds(sampler) == {"fast": 10, "slow": 60}
    assert sampler.result()["total_ms"] == 70


def test_time_between_batches_counts_for_nobody(fake_time: FakeTime, sampler: Sampler) -> None:
    for _ in range(3):
        sampler.clock.begin()
        fake_time.now_ns += 2 * MS
        root(slow, sampler)
        sampler.clock.end()
        fake_time.now_ns += 500 * MS
        sampler.take(sys._getframe())
    assert milliseconds(sampler) == {"slow": 6}
    assert sampler.result()["total_ms"] == 6


def test_batches_that_no_sample_met_count_for_the_next_one(fake_time: FakeTime, sampler: Sampler) -> None:
    """Else what a short batch does first would hardly count: too little of it has passed by then."""
    for _ in range(5):
        sampler.clock.begin()
        fake_time.now_ns += MS
        sampler.clock.end()
    sampler.clock.begin()
    root(fast, sampler)
    sampler.clock.end()
    assert milliseconds(sampler) == {"fast": 5}


def test_a_stack_has_files_and_lines_outermost_first(fake_time: FakeTime, sampler: Sampler) -> None:
    sampler.clock.begin()
    fake_time.now_ns += MS
    root(outer, sampler)
    [stack] = sampler.result()["stacks"]
    lines = {name: line for name, _, line in stack["frames"]}
    assert lines == {each.__name__: each.__code__.co_firstlineno + 1 for each in (outer, fast)}
    assert list(lines) == ["outer", "fast"]
    assert stack["frames"][0][1].endswith("tests/worker/test_profile_sampler.py")


def test_its_thread_ends_and_counts_nothing_without_batches(sampler: Sampler) -> None:
    sampler.start()
    sampler.stop()
    assert sampler.result()["stacks"] == []

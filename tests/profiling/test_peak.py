"""This CPU's peak, measured by a child process."""

from __future__ import annotations

import pytest

from nbserve.profiling.peak import environment, gflops_of, peak_gflops


@pytest.mark.parametrize(
    ("output", "gflops"),
    [
        ("90.125\n", 90.125),
        ("a warning of torch\n90.5\n", 90.5),
        ("", None),
        ("Traceback\n", None),
        ("0.0\n", None),
        ("nan\n", None),
        ("inf\n", None),
    ],
)
def test_only_a_number_is_a_peak(output: str, gflops: float | None) -> None:
    assert gflops_of(output) == gflops


def test_the_environment_does_not_limit_the_threads() -> None:
    found = environment({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HOME": "/home/a"})
    assert found["HOME"] == "/home/a"
    assert not {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & found.keys()
    assert found["PYTHONPATH"]


@pytest.mark.process
def test_the_peak_is_measured_once_for_each_number_of_threads() -> None:
    found = peak_gflops(1)
    assert found is not None
    assert found > 0.1
    assert peak_gflops(1) == found


@pytest.mark.process
def test_a_child_that_fails_gives_no_peak() -> None:
    assert peak_gflops(-1) is None

"""Verdicts from planted ratios and from pure noise."""

from __future__ import annotations

import numpy as np
import pytest

from nbserve.profiling.statistics import LEAST_PAIRS, estimate

TRIES = 200


def noisy(true: float, pairs: int, seed: int, noise: float = 0.06) -> list[float]:
    """Ratios as a busy machine gives them: every tenth is far off."""
    rng = np.random.default_rng(seed)
    ratios = true * np.exp(rng.normal(0, noise, pairs))
    disturbed = rng.random(pairs) < 0.1
    found: list[float] = np.where(disturbed, ratios * np.exp(rng.normal(0, 0.5, pairs)), ratios).tolist()
    return found


@pytest.mark.parametrize(("true", "verdict"), [(1.3, "faster"), (2.0, "faster"), (0.75, "slower"), (0.5, "slower")])
def test_a_planted_ratio_is_found(true, verdict):
    found = [estimate(noisy(true, 30, seed)) for seed in range(TRIES)]
    assert {each.verdict for each in found} == {verdict}
    assert np.median([each.speedup for each in found]) == pytest.approx(true, rel=0.02)


@pytest.mark.parametrize("true", [1.0, 1.01, 0.99])
@pytest.mark.parametrize("pairs", [LEAST_PAIRS, 12, 40])
def test_noise_is_no_gain(true, pairs):
    verdicts = [estimate(noisy(true, pairs, seed)).verdict for seed in range(TRIES)]
    assert verdicts.count("no gain") > 0.94 * TRIES


def test_the_interval_holds_the_truth_as_often_as_it_says():
    found = [estimate(noisy(1.2, 20, seed)).interval for seed in range(TRIES)]
    assert sum(low <= 1.2 <= high for low, high in found) > 0.88 * TRIES


def test_a_gain_too_small_to_matter_is_none():
    assert estimate([1.01] * 40).verdict == "no gain"
    assert estimate([1 / 1.01] * 40).verdict == "no gain"


def test_few_pairs_prove_nothing():
    few = estimate([2.0] * (LEAST_PAIRS - 1))
    assert (few.verdict, few.speedup, few.interval) == ("no gain", pytest.approx(2.0), pytest.approx((2.0, 2.0)))
    assert estimate([2.0] * LEAST_PAIRS).verdict == "faster"
    assert estimate([]).verdict == "no gain"


def test_the_same_ratios_give_the_same_interval():
    ratios = noisy(1.1, 20, 3)
    assert estimate(ratios) == estimate(ratios)

"""Warnings of doubtful samples: each is given where it should be, and not for steady samples."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner.bench.checks import drift, few_samples, outliers, slow_extreme, slow_first, spread, warnings_of

CHECKS = [drift, outliers, slow_extreme, slow_first, spread]
STEADY = [1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.01, 0.99, 1.0, 1.01]


@pytest.mark.parametrize("samples", [2, 5, 8, 20, 50])
@pytest.mark.parametrize("check", CHECKS)
def test_normal_noise_of_1_percent_is_seldom_warned_of(
    check: Callable[[Sequence[float]], str | None], samples: int
) -> None:
    rng = random.Random(1)
    alarms = sum(check([rng.gauss(1, 0.01) for _ in range(samples)]) is not None for _ in range(300))
    assert alarms <= 6


def test_steady_samples_have_no_warning() -> None:
    assert warnings_of(STEADY) == []


def test_a_slow_first_sample_is_told_as_that_only() -> None:
    assert warnings_of([2.0, *STEADY]) == [
        "the first sample took 100 % longer than the median of the others: caches may have been cold, so warm up"
    ]


def test_an_outlier_that_is_not_the_first_is_told_as_one() -> None:
    assert slow_first([*STEADY, 2.0]) is None
    assert warnings_of([*STEADY, 1.4, *STEADY]) == [
        "1 of 21 samples is an outlier, more than ten standard deviations from the rest: was the machine busy?"
    ]
    assert outliers([*STEADY, 1.4, 0.5]) == (
        "2 of 12 samples are outliers, more than ten standard deviations from the rest: was the machine busy?"
    )


def test_a_clock_with_few_values_makes_no_outliers() -> None:
    assert outliers([1.0] * 20 + [1.01, 0.99]) is None
    assert outliers([1.0] * 20 + [1.5]) is not None


def test_a_wide_spread_and_a_slow_sample_are_told_from_pyperfs_bounds_on() -> None:
    assert spread([0.9, 1.0, 1.1]) == "the standard deviation is 10 % of the mean"
    assert spread([0.91, 1.0, 1.09]) is None
    assert slow_extreme([1.0, 1.0, 1.5]) == "the slowest sample is 50 % above the median"
    assert slow_extreme([1.0, 1.0, 1.49]) is None


def test_a_trend_is_told_with_its_direction() -> None:
    rng = random.Random(2)
    rising = [(1 + 0.1 * i / 30) * rng.gauss(1, 0.01) for i in range(30)]
    assert "longer than the first" in str(drift(rising))
    assert "less than the first" in str(drift(rising[::-1]))


def test_a_trend_too_small_or_too_short_to_matter_is_not_told() -> None:
    assert drift([1 + 0.001 * i for i in range(30)]) is not None
    assert drift([1 + 0.0005 * i for i in range(30)]) is None
    assert drift([1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6]) is None


def test_too_few_samples_are_told() -> None:
    assert few_samples([1.0]) == "only 1 sample: take at least 5, better 20"
    assert few_samples([1.0] * 4) == "only 4 samples: take at least 5, better 20"
    assert few_samples([1.0] * 5) is None


def test_no_samples_have_no_warning() -> None:
    assert warnings_of([]) == []
    assert all(check([]) is None for check in CHECKS)


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 1e4), max_size=40))
def test_any_durations_can_be_looked_at(samples: list[float]) -> None:
    assert all(sentence and not sentence.endswith(".") for sentence in warnings_of(samples))


@settings(deadline=None)
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=40), st.sampled_from([0.25, 4.0, 1024.0]))
def test_another_unit_changes_no_warning(samples: list[float], unit: float) -> None:
    # Powers of two, which change no digit, so that no bound is crossed by rounding.
    assert warnings_of([unit * x for x in samples]) == warnings_of(samples)

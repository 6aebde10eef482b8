"""Intervals of medians and ratios: how often they are wrong, and what leaves them as they are."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner.bench.intervals import (
    Estimate,
    median_interval,
    ratio_interval,
    relative_error,
    resampled_half,
    resampled_medians,
    student_quantile,
    summarise,
)

durations = st.floats(1e-6, 1e4)
several = st.lists(durations, min_size=1, max_size=40)
pairs = st.lists(st.tuples(durations, durations), min_size=2, max_size=40)


def normal(rng: random.Random, _: float) -> float:
    return 1 + 0.02 * rng.gauss(0, 1)


def heavy(rng: random.Random, _: float) -> float:
    return (1 + 0.01 * rng.gauss(0, 1)) * (rng.uniform(1.1, 1.5) if rng.random() < 0.05 else 1)


def lognormal(rng: random.Random, _: float) -> float:
    return rng.lognormvariate(0, 0.2)


def drifting(rng: random.Random, when: float) -> float:
    return (1 + 0.1 * when) * (1 + 0.01 * rng.gauss(0, 1))


def stepping(rng: random.Random, when: float) -> float:
    return (1.1 if when > 0.3 else 1.0) * (1 + 0.01 * rng.gauss(0, 1))


@pytest.mark.parametrize("rounds", [5, 10, 20])
@pytest.mark.parametrize("noise", [normal, heavy, lognormal, drifting, stepping])
def test_a_program_compared_with_itself_is_called_different_in_some_5_percent(
    noise: Callable[[random.Random, float], float], rounds: int
) -> None:
    rng = random.Random(1)
    claims = 0
    for _ in range(200):
        sampled = [(noise(rng, i / rounds), noise(rng, i / rounds)) for i in range(rounds)]
        claims += ratio_interval([a for a, _ in sampled], [b for _, b in sampled], paired=True).excludes(1)
    assert 2 <= claims <= 20


@pytest.mark.parametrize("rounds", [10, 20])
def test_unpaired_comparisons_with_itself_are_called_different_in_less_than_10_percent(rounds: int) -> None:
    rng = random.Random(2)
    claims = 0
    for _ in range(200):
        first, second = ([lognormal(rng, 0) for _ in range(n)] for n in (rounds, rounds + 3))
        claims += ratio_interval(first, second, paired=False).excludes(1)
    assert 1 <= claims <= 20


@pytest.mark.parametrize("samples", [2, 3, 4, 5, 9, 30])
def test_the_interval_of_the_median_misses_it_in_some_5_percent(samples: int) -> None:
    rng = random.Random(3)
    misses = sum(median_interval([lognormal(rng, 0) for _ in range(samples)]).excludes(1) for _ in range(400))
    assert 6 <= misses <= 36


def test_a_difference_of_3_percent_is_found_under_a_drift_of_10() -> None:
    rng = random.Random(4)
    found = 0
    for _ in range(50):
        first = [1.03 * drifting(rng, i / 20) for i in range(20)]
        second = [drifting(rng, i / 20) for i in range(20)]
        found += ratio_interval(first, second, paired=True).excludes(1)
    assert found >= 49


@settings(deadline=None)
@given(several, st.floats(0.5, 0.999))
def test_the_median_lies_in_its_interval(samples: list[float], confidence: float) -> None:
    estimate = median_interval(samples, confidence=confidence)
    assert estimate.value == statistics.median(samples)
    assert not estimate.excludes(estimate.value)


@settings(deadline=None)
@given(several)
def test_more_confidence_never_makes_the_interval_narrower(samples: list[float]) -> None:
    widths = [median_interval(samples, confidence=confidence) for confidence in (0.8, 0.9, 0.95, 0.99)]
    for narrow, wide in itertools.pairwise(widths):
        assert wide.low <= narrow.low * (1 + 1e-12)
        assert wide.high >= narrow.high * (1 - 1e-12)


@settings(deadline=None)
@given(several, st.randoms())
def test_the_order_of_samples_is_of_no_matter_to_the_median(samples: list[float], rng: random.Random) -> None:
    shuffled = samples[:]
    rng.shuffle(shuffled)
    assert median_interval(shuffled) == median_interval(samples)
    assert relative_error(shuffled) == relative_error(samples)


@settings(deadline=None)
@given(pairs, st.randoms())
def test_the_order_of_rounds_is_of_no_matter_to_the_ratio(
    sampled: list[tuple[float, float]], rng: random.Random
) -> None:
    shuffled = sampled[:]
    rng.shuffle(shuffled)
    one, other = (
        ratio_interval([a for a, _ in rows], [b for _, b in rows], paired=True) for rows in (sampled, shuffled)
    )
    assert one == other


@settings(deadline=None)
@given(several, st.floats(1e-3, 1e3))
def test_another_unit_scales_the_interval(samples: list[float], factor: float) -> None:
    estimate, scaled = median_interval(samples), median_interval([factor * x for x in samples])
    assert scaled.value == pytest.approx(factor * estimate.value)
    assert scaled.low == pytest.approx(factor * estimate.low)
    assert scaled.high == pytest.approx(factor * estimate.high)


@settings(deadline=None)
@given(pairs, st.booleans())
def test_numerator_and_denominator_exchanged_give_the_inverse(sampled: list[tuple[float, float]], paired: bool) -> None:
    first, second = [a for a, _ in sampled], [b for _, b in sampled]
    ratio, inverse = (ratio_interval(a, b, paired=paired) for a, b in ((first, second), (second, first)))
    assert inverse.value == pytest.approx(1 / ratio.value)
    assert inverse.low == pytest.approx(1 / ratio.high)
    assert inverse.high * ratio.low == pytest.approx(1) or (math.isinf(inverse.high) and ratio.low < 1e-300)
    assert ratio.low <= ratio.value <= ratio.high


@settings(deadline=None)
@given(st.lists(durations, min_size=2, max_size=40), st.floats(0.1, 10))
def test_what_slows_a_whole_round_cancels(samples: list[float], factor: float) -> None:
    estimate = ratio_interval([factor * x for x in samples], samples, paired=True)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((factor, factor, factor))


@settings(deadline=None)
@given(several)
def test_the_ratio_of_samples_to_themselves_is_1(samples: list[float]) -> None:
    assert ratio_interval(samples, samples, paired=True).value == 1
    assert not ratio_interval(samples, samples, paired=False).excludes(1)


@settings(deadline=None)
@given(durations, st.integers(2, 30))
def test_equal_samples_have_an_interval_without_width(value: float, n: int) -> None:
    expected = Estimate(value=value, low=value, high=value)
    assert median_interval([value] * n) == expected
    assert relative_error([value] * max(n, 3)) == 0
    one = Estimate(value=1.0, low=1.0, high=1.0)
    assert ratio_interval([value] * n, [value] * n, paired=True) == one
    assert ratio_interval([value] * n, [value] * n, paired=False) == one


def test_one_sample_tells_nothing_of_its_error() -> None:
    nothing = Estimate(value=2.0, low=0.0, high=math.inf)
    assert median_interval([2.0]) == nothing
    assert ratio_interval([2.0], [1.0], paired=True) == nothing
    assert ratio_interval([2.0], [1.0, 1.0, 1.0], paired=False) == nothing
    assert relative_error([]) == relative_error([1.0]) == relative_error([1.0, 1.0]) == math.inf


def test_few_samples_have_an_interval_beyond_them() -> None:
    estimate = median_interval([1.0, 1.1])
    assert estimate.low < 0.7 and estimate.high > 1.6


def test_ten_samples_have_the_interval_that_tables_of_the_sign_test_give() -> None:
    # The second and the ninth have 97.9 %, the third and the eighth 89.1 %.
    ten = [float(x) for x in range(1, 11)]
    estimate = median_interval(ten, confidence=1 - 2 * 11 / 1024)
    assert (estimate.low, estimate.high) == pytest.approx((2, 9))
    estimate = median_interval(ten)
    assert 2 < estimate.low < 3 and 8 < estimate.high < 9


@pytest.mark.parametrize("samples", [[], [0.0], [-1.0], [1.0, math.nan], [math.inf]])
def test_what_is_no_duration_is_refused(samples: list[float]) -> None:
    for call in (summarise, median_interval, lambda x: ratio_interval(x, x, paired=True)):
        with pytest.raises(ValueError, match="sample"):
            call(samples)


def test_pairs_need_both_samples() -> None:
    with pytest.raises(ValueError, match="1 and 2 given"):
        ratio_interval([1.0], [1.0, 2.0], paired=True)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_a_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        median_interval([1.0, 2.0], confidence=confidence)


@settings(deadline=None)
@given(several)
def test_percentiles_are_those_of_numpy(samples: list[float]) -> None:
    numpy = pytest.importorskip("numpy")
    summary = summarise(samples)
    expected = numpy.percentile(samples, [0, 5, 25, 50, 75, 95, 100])
    found = [getattr(summary, name) for name in ("minimum", "p5", "p25", "median", "p75", "p95", "maximum")]
    assert found == pytest.approx(list(expected))
    assert summary.mean == pytest.approx(numpy.mean(samples))
    assert summary.mad == pytest.approx(numpy.median(numpy.abs(numpy.array(samples) - summary.median)))
    assert (summary.stdev is None) == (summary.count == len(samples) == 1)


def test_the_relative_error_is_that_of_the_median() -> None:
    rng = random.Random(5)
    # The standard error of the median of n normal samples is 1.2533 / sqrt(n) standard deviations.
    errors = [relative_error([normal(rng, 0) for _ in range(50)]) for _ in range(100)]
    assert statistics.mean(errors) == pytest.approx(1.2533 * 0.02 / math.sqrt(50), rel=0.15)


@pytest.mark.parametrize(
    ("confidence", "degrees", "expected"),
    [
        (0.95, 1, 12.7062),
        (0.95, 3, 3.1824),
        (0.99, 4, 4.6041),
        (0.95, 30, 2.0423),
        (0.5, 7, 0.7111),
        (0.95, 500, 1.9647),
    ],
)
def test_quantiles_of_students_t_are_those_of_the_tables(confidence: float, degrees: int, expected: float) -> None:
    assert student_quantile(confidence, degrees) == pytest.approx(expected, abs=5e-5)


def test_quantiles_of_students_t_fall_to_those_of_the_normal_distribution() -> None:
    quantiles = [student_quantile(0.95, degrees) for degrees in range(1, 400)]
    assert quantiles == sorted(quantiles, reverse=True)
    assert quantiles[-1] > statistics.NormalDist().inv_cdf(0.975)


def test_resampled_rounds_keep_what_is_common_to_a_round_and_do_without_what_failed() -> None:
    draws = resampled_medians([[1.0, 2.0, None], [3.0, 6.0, 5.0], [None, None, 7.0]], count=50)
    assert 0 < len(draws) <= 50
    assert all(second == 2 * first for first, second, _ in draws)
    assert draws == resampled_medians([[1.0, 2.0, None], [3.0, 6.0, 5.0], [None, None, 7.0]], count=50)
    assert resampled_medians([]) == []
    assert resampled_half([1.0, 2.0], rounds=1) == 0

"""Whole benchmarks on simulated clocks: what is claimed of the same, the slower and the drifting."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest

from jobrunner.bench import timing
from jobrunner.bench.compare import comparisons
from jobrunner.bench.result import BenchmarkResult
from tests.bench.simulated import SimulatedClock, simulate, work


@pytest.fixture(autouse=True)
def no_empty_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """The empty function is called by the real interpreter, half a million times a calibration."""
    monkeypatch.setattr(timing, "_EMPTY_CALLS", 1)


def against_itself(seed: int, noise: float = 0.02) -> BenchmarkResult:
    clock, rng = SimulatedClock(), random.Random(seed)
    worker = itertools.count()

    def before() -> None:  # each worker has its own pace
        next(worker)
        clock.pace = rng.gauss(1.0, noise)  # type: ignore[attr-defined]

    def called() -> None:
        clock.pass_(0.2 * clock.pace * rng.gauss(1.0, noise))  # type: ignore[attr-defined]

    return simulate({"one": called, "other": called}, clock, before=before, order=seed, samples=20)


def test_an_implementation_against_itself_is_called_different_in_about_the_nominal_share_of_runs() -> None:
    """200 runs at 5 %: ten are expected, and fewer than 3 or more than 20 have a chance below 1 in 500."""
    claimed = sum(comparisons(against_itself(seed))[0].different for seed in range(200))
    assert 3 <= claimed <= 20


def test_a_difference_above_the_noise_is_found() -> None:
    clock, rng = SimulatedClock(), random.Random(1)
    result = simulate({"one": work(clock, 0.2, 0.02, rng), "other": work(clock, 0.22, 0.02, rng)}, clock, samples=20)
    (comparison,) = comparisons(result)
    assert comparison.different
    assert comparison.slower_by(0.05)
    assert not comparison.slower_by(0.2)
    assert comparison.ratio is not None
    assert comparison.ratio.low < 1.1 < comparison.ratio.high


def drifting(order: int) -> BenchmarkResult:
    """The machine becomes 40 % slower over the run."""
    clock, rng = SimulatedClock(), random.Random(order)
    pace: Iterator[float] = (1.0 + 0.01 * n for n in itertools.count())
    current = [1.0]

    def before() -> None:
        current[0] = next(pace)

    def one() -> None:
        clock.pass_(0.2 * current[0] * rng.gauss(1.0, 0.005))

    def other() -> None:
        clock.pass_(0.24 * current[0] * rng.gauss(1.0, 0.005))

    return simulate({"one": one, "other": other}, clock, before=before, order=order, samples=20)


def test_a_drift_of_the_machine_does_not_reach_the_ratio_and_is_told() -> None:
    for order in range(10):
        result = drifting(order)
        (comparison,) = comparisons(result)
        assert comparison.ratio is not None
        assert comparison.ratio.value == pytest.approx(1.2, rel=0.03)
        assert any("drift" in text or "slower" in text for text in result.warnings)


def test_in_each_round_every_series_has_one_sample_in_a_random_order() -> None:
    clock, rng = SimulatedClock(), random.Random(1)
    taken: list[str] = []

    def named(name: str) -> object:
        def called() -> None:
            taken.append(name)
            clock.pass_(0.2 * rng.gauss(1.0, 0.01))

        return called

    names = ["a", "b", "c", "d"]
    result = simulate({name: named(name) for name in names}, clock, samples=6, warmup=0)  # type: ignore[misc]
    for series in result.series:
        assert [sample.round for sample in series.samples] == list(range(6))
    samples = [name for name, _ in itertools.groupby(taken)]
    rounds = list(zip(*[iter(taken[-6 * 4 * 3 :: 3])] * 4, strict=True))
    assert all(sorted(each) == names for each in rounds), samples
    assert len(set(rounds)) > 1


def test_a_fast_function_is_called_in_loops_that_make_a_value_long_enough() -> None:
    clock, rng = SimulatedClock(), random.Random(1)
    result = simulate({"f": work(clock, 1e-6, 0.01, rng)}, clock, samples=2)
    (series,) = result.series
    assert series.loops is not None
    assert 100_000 <= series.loops <= 1_000_000
    assert series.median is not None
    assert series.median.value == pytest.approx(1e-6, rel=0.01)


def test_a_call_of_a_second_or_more_is_one_value_a_sample() -> None:
    clock, rng = SimulatedClock(), random.Random(1)
    (series,) = simulate({"f": work(clock, 2.0, 0.01, rng)}, clock, samples=3).series
    assert [len(sample.values) for sample in series.samples] == [1, 1, 1]
    assert series.loops == 1


def test_a_function_that_the_clock_cannot_see_is_said_to_be_too_fast() -> None:
    result = simulate({"f": lambda: None}, SimulatedClock(), samples=3)
    (series,) = result.series
    assert series.given_up is not None
    assert "too fast to be timed" in series.given_up
    assert result.failed


def test_min_time_goes_on_until_the_timed_seconds_are_reached() -> None:
    clock, rng = SimulatedClock(), random.Random(1)
    (series,) = simulate({"f": work(clock, 0.2, 0.01, rng)}, clock, min_time=6.0).series
    timed = sum(sum(sample.values) * sample.loops for sample in series.samples)
    assert 6.0 <= timed < 6.0 + 0.7


def test_what_can_not_be_reached_ends_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobrunner.bench.measure.SAMPLES_MOST", 12)
    monkeypatch.setattr("jobrunner.bench.result.SAMPLES_MOST", 12)
    clock, rng = SimulatedClock(), random.Random(1)
    result = simulate({"f": work(clock, 0.2, 0.3, rng)}, clock, target_rse=0.001)
    assert len(result.series[0].samples) == 12
    assert "f: stopped at 12 samples, before target_rse was reached" in result.warnings


def test_target_rse_takes_more_samples_of_what_is_noisier() -> None:
    clock, rng = SimulatedClock(), random.Random(1)
    functions = {"calm": work(clock, 0.2, 0.003, rng), "noisy": work(clock, 0.2, 0.1, rng)}
    calm, noisy = simulate(functions, clock, target_rse=0.01).series
    assert 10 <= len(calm.samples) < 20 < len(noisy.samples)


def test_a_series_that_fails_three_times_in_a_row_is_given_up_and_the_others_go_on() -> None:
    clock, rng = SimulatedClock(), random.Random(1)
    calls = itertools.count()

    def breaks() -> None:
        clock.pass_(0.2)
        if next(calls) > 10:
            raise ValueError("worn out")

    broken, good = simulate({"breaks": breaks, "good": work(clock, 0.2, 0.01, rng)}, clock, samples=9).series
    assert broken.good
    assert len(broken.failed) == 3
    assert broken.given_up == "its last 3 samples have failed: a call fails: ValueError: worn out"
    assert len(good.good) == 9


def test_the_first_call_that_fails_gives_the_series_up_at_once() -> None:
    clock, rng = SimulatedClock(), random.Random(1)

    def bad() -> None:
        raise KeyError("nothing here")

    broken, good = simulate({"bad": bad, "good": work(clock, 0.2, 0.01, rng)}, clock, samples=3).series
    assert broken.samples == ()
    assert broken.given_up == "it can't be calibrated: its first call fails: KeyError: 'nothing here'"
    assert len(good.good) == 3


def test_the_growth_of_a_quadratic_function_is_told_as_one() -> None:
    clock, rng = SimulatedClock(), random.Random(1)

    def quadratic(n: int) -> None:
        clock.pass_(1e-4 * n * n * rng.gauss(1.0, 0.01))

    result = simulate({"q": quadratic}, clock, points={"n": [10, 20, 40, 80, 160]}, samples=5)
    (growth,) = result.growths
    assert "n^2" in growth.fit.text
    assert growth.fit.exponent.low < 2.0 < growth.fit.exponent.high

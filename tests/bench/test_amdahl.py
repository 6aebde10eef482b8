"""Amdahl's law: the serial fraction is found, with an interval that is seldom wrong."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner.bench.amdahl import Amdahl, fit_amdahl
from jobrunner.bench.intervals import Estimate

WIDTHS = (1, 2, 4, 8)


def measure(
    serial: float,
    widths: Sequence[int] = WIDTHS,
    *,
    rounds: int = 10,
    noise: float = 0.02,
    drift: float = 0.0,
    seed: int = 1,
) -> Amdahl:
    rng = random.Random(seed)
    amdahl = fit_amdahl(
        widths,
        [
            [10 * (1 + drift * i / rounds) * (serial + (1 - serial) / w) * rng.lognormvariate(0, noise) for w in widths]
            for i in range(rounds)
        ],
    )
    assert amdahl is not None
    return amdahl


@settings(deadline=None, max_examples=50)
@given(
    st.floats(-0.05, 1.05),
    st.floats(1e-3, 1e3),
    st.sets(st.integers(1, 64), min_size=2, max_size=6),
)
def test_exact_times_give_the_exact_serial_fraction(serial: float, seconds: float, chosen: set[int]) -> None:
    widths = sorted(chosen)
    times = [seconds * (serial + (1 - serial) / w) for w in widths]
    if min(times) <= 1e-3 * seconds:
        return  # beyond that width the law has no time left
    amdahl = fit_amdahl(widths, [times, times])
    assert amdahl is not None
    assert amdahl.serial.value == pytest.approx(serial, abs=1e-6)
    assert amdahl.seconds == pytest.approx(seconds, rel=1e-6)
    assert amdahl.deviation == pytest.approx(0, abs=1e-9)
    assert [s.value for s in amdahl.speedups] == pytest.approx([times[0] / t for t in times])
    assert [e.value for e in amdahl.efficiencies] == pytest.approx(
        [times[0] * widths[0] / (t * w) for t, w in zip(times, widths, strict=True)]
    )


@pytest.mark.parametrize("drift", [0.0, 0.1])
@pytest.mark.parametrize("rounds", [2, 5, 20])
def test_the_interval_seldom_misses_the_serial_fraction(rounds: int, drift: float) -> None:
    misses = sum(measure(0.1, rounds=rounds, drift=drift, seed=seed).serial.excludes(0.1) for seed in range(50))
    assert misses <= 7


def test_a_drift_over_rounds_does_not_widen_the_interval() -> None:
    steady, drifting = measure(0.1), measure(0.1, drift=0.3)
    width = steady.serial.high - steady.serial.low
    assert drifting.serial.high - drifting.serial.low == pytest.approx(width)


def test_the_text_says_what_was_found() -> None:
    serial = measure(0.1).serial
    assert (
        measure(0.1).text
        == f"serial fraction {100 * serial.value:.1f} % ({100 * serial.low:.1f} % to {100 * serial.high:.1f} %)"
    )
    nothing = measure(0.0)
    assert nothing.text == f"no serial part seen (at most {100 * nothing.serial.high:.1f} %)"
    assert measure(-0.03).text == "no serial part: more than w times as fast with w workers"
    assert measure(1.0).text.startswith("no speedup seen (serial fraction at least 9")
    assert measure(0.1, rounds=1, noise=0).text == "serial fraction about 10.0 %, from one round"


def test_times_that_do_not_follow_the_law_are_told_to_do_so() -> None:
    amdahl = fit_amdahl((1, 2, 4, 8, 16), [[level * t for t in (8, 4, 2, 2, 2)] for level in (1.0, 1.01, 1.02)])
    assert amdahl is not None
    assert amdahl.deviation > 0.2
    assert amdahl.text.endswith(" % off Amdahl's law")


def test_one_round_tells_nothing_of_the_noise() -> None:
    amdahl = measure(0.1, rounds=1)
    assert (amdahl.serial.low, amdahl.serial.high) == (-math.inf, math.inf)
    assert amdahl.speedups[0] == Estimate(value=1.0, low=1.0, high=1.0)
    assert (amdahl.speedups[1].low, amdahl.speedups[1].high) == (0.0, math.inf)


def test_the_smallest_width_is_what_speedups_are_against() -> None:
    amdahl = measure(0.0, (8, 2, 4), noise=0)
    assert amdahl.widths == (2, 4, 8)
    assert [s.value for s in amdahl.speedups] == pytest.approx([1, 2, 4])
    assert [e.value for e in amdahl.efficiencies] == pytest.approx([1, 1, 1])
    assert amdahl.seconds == pytest.approx(10)


def test_samples_that_failed_are_left_out() -> None:
    amdahl = fit_amdahl(WIDTHS, [[8.0, None, 2.0, None], [8.1, 4.05, None, None], [None, 4.1, 2.05, None]])
    assert amdahl is not None
    assert amdahl.widths == (1, 2, 4)
    assert amdahl.serial.value == pytest.approx(0, abs=0.02)
    assert fit_amdahl(WIDTHS, [[1.0, None, None, None]]) is None
    assert fit_amdahl(WIDTHS, []) is None


def test_widths_that_share_no_round_have_a_speedup_without_bounds() -> None:
    amdahl = fit_amdahl((1, 2), [[8.0, None], [None, 4.0]])
    assert amdahl is not None
    assert amdahl.speedups[1] == Estimate(value=2.0, low=0.0, high=math.inf)


@pytest.mark.parametrize("widths", [(1, 1), (0, 1), (-1, 2)])
def test_widths_are_distinct_numbers_of_workers(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="distinct numbers of workers"):
        fit_amdahl(widths, [[1.0, 1.0]])


def test_a_round_has_a_place_for_each_width() -> None:
    with pytest.raises(ValueError, match="2 widths"):
        fit_amdahl((1, 2), [[1.0]])


def test_runs_that_vary_too_much_tell_nothing_of_a_serial_part() -> None:
    rounds = [[1.0, 0.3], [1.0, 1.4], [1.0, 0.9], [1.0, 0.5], [1.0, 1.2]]
    found = fit_amdahl([1, 2], rounds)
    assert found is not None
    assert found.serial.low <= 0 < 1 <= found.serial.high
    assert "vary too much to tell" in found.text

"""Ticks are round numbers that lie on the axis, whatever the range."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobrunner.batch.report.scales import familiar_ticks, linear, logarithmic, round_step, time_step


def test_linear_ticks_are_round_and_begin_and_end_the_axis() -> None:
    scale = linear(0, 9.3)
    assert scale.ticks == (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)
    assert (scale.least, scale.most) == (0.0, 10.0)
    assert scale.at(5.0) == 0.5


def test_ticks_have_no_floating_point_dust() -> None:
    assert linear(0, 0.5).ticks == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)


def test_counts_have_whole_ticks() -> None:
    assert linear(0, 1, whole=True).ticks == (0.0, 1.0)
    assert linear(0, 2, whole=True).ticks == (0.0, 1.0, 2.0)


def test_logarithmic_ticks_are_powers_of_ten_and_their_simple_parts() -> None:
    assert logarithmic(0.3, 40).ticks == (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
    assert logarithmic(1, 1e6, ticks=7).ticks == tuple(10.0**power for power in range(7))
    assert logarithmic(1, 100).at(10.0) == pytest.approx(0.5)


def test_time_steps_are_those_of_a_clock() -> None:
    assert [time_step(span, 6) for span in (60, 300, 3600, 86_400, 10 * 86_400)] == [10, 60, 600, 21_600, 172_800]


def test_logarithmic_durations_and_sizes_have_the_ticks_of_their_units() -> None:
    assert familiar_ticks(0.5, 5000, 6, binary=False) == (1.0, 10.0, 60.0, 600.0, 3600.0)
    assert [tick / 2**20 for tick in familiar_ticks(2**20, 2**30, 6, binary=True)] == [1, 4, 16, 64, 256, 1024]


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12))
def test_any_range_has_few_ticks_within_it(least: float, span: float) -> None:
    scale = linear(least, least + span)
    assert 1 <= len(scale.ticks) <= 9
    assert list(scale.ticks) == sorted(set(scale.ticks))
    slack = (scale.most - scale.least) * 1e-6
    assert all(scale.least - slack <= tick <= scale.most + slack for tick in scale.ticks)
    assert scale.least <= least + slack and scale.most >= least + span - slack


@given(st.floats(1e-12, 1e12), st.floats(1.01, 1e15))
def test_any_positive_range_has_a_logarithmic_scale(least: float, ratio: float) -> None:
    scale = logarithmic(least, least * ratio)
    assert len(scale.ticks) <= 6
    assert all(-1e-6 <= scale.at(tick) <= 1 + 1e-6 for tick in scale.ticks)


@given(st.floats(1e-9, 1e9), st.integers(1, 20))
def test_a_round_step_is_one_two_or_five(span: float, count: int) -> None:
    step = round_step(span, count)
    assert span / step <= count * (1 + 1e-6)
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in (1, 2, 5)

"""Replicates of a point as one row: what becomes a mean with its error, and what does not."""

from __future__ import annotations

import datetime
import math
import statistics
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner.batch import aggregate, group
from jobrunner.batch.replicates import mean_and_error

numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**18), 10**18)


@settings(deadline=None)
@given(st.lists(numbers, min_size=2, max_size=20))
def test_mean_and_error_are_those_of_exact_arithmetic(values: list[float]) -> None:
    pair = mean_and_error(values)
    assert pair is not None
    mean, error = pair
    exact = [Fraction(float(value)) for value in values]
    largest = float(max(map(abs, exact)))
    assert mean == pytest.approx(float(statistics.mean(exact)), rel=1e-15, abs=max(largest * 1e-15, 5e-324))
    variance = statistics.variance(exact) / len(exact)
    # Scaled before the root is taken, which floats have no room for otherwise.
    scale = Fraction(largest) or Fraction(1)
    expected = math.sqrt(variance / scale**2) * float(scale)
    assert error == pytest.approx(expected, rel=1e-9, abs=max(largest * 1e-25, 5e-324))


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_the_error_is_the_sample_deviation_over_the_root_of_n(values: list[float]) -> None:
    pair = mean_and_error(values)
    assert pair is not None
    assert pair[0] == pytest.approx(statistics.mean(values), rel=1e-15, abs=1e-9)
    assert pair[1] == pytest.approx(statistics.stdev(values) / math.sqrt(len(values)), rel=1e-12, abs=1e-150)


@settings(deadline=None)
@given(numbers, st.integers(2, 50))
def test_equal_numbers_have_themselves_as_mean_and_no_error(value: float, n: int) -> None:
    assert mean_and_error([value] * n) == (float(value), 0.0)


def test_numbers_that_differ_in_their_last_digits_keep_their_error() -> None:
    values = [1.0, 1.0 + 2**-52, 1.0 + 2**-51]
    pair = mean_and_error(values)
    assert pair is not None
    assert pair[1] == pytest.approx(2**-52 / math.sqrt(3), rel=1e-12)


def test_one_number_has_no_error() -> None:
    assert aggregate([2.5]) == {"result_mean": 2.5, "result_sem": None, "replicates": 1}


def test_no_results_have_no_columns() -> None:
    assert aggregate([]) == {"replicates": 0}


def test_columns_that_are_equal_are_kept_and_others_listed() -> None:
    rows = [
        {"energy": 1, "fit": {"slope": 0.5}, "model": "ising", "ok": True, "state": "a", "cell": [1, 2]},
        {"energy": 3, "fit": {"slope": 1.5}, "model": "ising", "ok": True, "state": "b", "cell": [1, 2], "late": 7},
    ]
    assert aggregate(rows) == {
        "energy_mean": 2.0,
        "energy_sem": 1.0,
        "fit.slope_mean": 1.0,
        "fit.slope_sem": 0.5,
        "model": "ising",
        "ok": True,
        "state": ["a", "b"],
        "cell": [1, 2],
        "late": [None, 7],
        "replicates": 2,
    }


@pytest.mark.parametrize(
    ("values", "column"),
    [
        ([1, None], [1, None]),
        ([1, True], [1, True]),
        ([True, True], True),
        ([10**400, 1], [10**400, 1]),
    ],
)
def test_what_is_no_number_in_all_results_has_no_mean(values: list[Any], column: Any) -> None:
    assert aggregate(values) == {"result": column, "replicates": 2}


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ([1.0, math.nan], math.nan),
        ([math.nan, math.nan], math.nan),
        ([math.inf, 1.0], math.inf),
        ([-math.inf, -math.inf], -math.inf),
        ([1e308, 1e308, -math.inf], -math.inf),
        ([math.inf, -math.inf], math.nan),
        ([math.inf, math.nan], math.nan),
    ],
)
def test_nan_and_the_infinities_are_numbers(values: list[float], mean: float) -> None:
    expected = {"result_mean": pytest.approx(mean, nan_ok=True), "result_sem": pytest.approx(math.nan, nan_ok=True)}
    assert aggregate(values) == {**expected, "replicates": len(values)}
    assert aggregate([math.inf]) == {"result_mean": math.inf, "result_sem": None, "replicates": 1}


class _Incomparable:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    __hash__ = object.__hash__


def test_values_of_any_type_stay_what_they_are() -> None:
    day, odd = datetime.date(2020, 1, 1), _Incomparable()
    assert aggregate([{"day": day, "z": 1j}, {"day": day, "z": 2j}]) == {"day": day, "z": [1j, 2j], "replicates": 2}
    assert aggregate([[1, math.nan], [1, math.nan]])["result"] == [1, pytest.approx(math.nan, nan_ok=True)]
    assert [value is odd for value in aggregate([odd, odd])["result"]] == [True, True]


def test_equal_arrays_and_tables_are_kept_and_others_listed() -> None:
    pandas: Any = pytest.importorskip("pandas")
    numpy: Any = pytest.importorskip("numpy")
    same = aggregate([{"a": numpy.arange(3), "t": pandas.DataFrame({"q": [1, None]})} for _ in range(2)])
    assert isinstance(same["a"], numpy.ndarray)
    assert isinstance(same["t"], pandas.DataFrame)
    other = aggregate([{"a": numpy.arange(3) + n, "t": pandas.DataFrame({"q": [n]})} for n in range(2)])
    assert [type(other[name]) for name in ("a", "t")] == [list, list]
    assert aggregate([numpy.float32(1), numpy.float32(3)]) == {"result_mean": 2.0, "result_sem": 1.0, "replicates": 2}


def test_no_column_takes_anothers_name() -> None:
    row = {"x": 1.0, "x_mean": "text", "replicates": "many"}
    assert aggregate([row]) == {
        "x_mean": 1.0,
        "x_sem": None,
        "result.x_mean": "text",
        "result.replicates": "many",
        "replicates": 1,
    }


@settings(deadline=None)
@given(st.integers(1, 5), st.sets(st.integers(0, 50)))
def test_groups_have_the_records_of_one_point_each(replicates: int, places: set[int]) -> None:
    grouped = dict(group(((place, place) for place in sorted(places)), replicates))
    assert sorted(place for members in grouped.values() for place in members) == sorted(places)
    assert all(place // replicates == index for index, members in grouped.items() for place in members)

"""A benchmark's samples as a table of pandas: numbers are numbers, whatever is missing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bench.results import made_result

pytest.importorskip("pandas")

NUMBERS = ["value", "seconds", "cpu_seconds", "peak_rss_bytes", "load", "started_at"]


def test_a_parameter_that_a_point_lacks_is_nan_and_no_text() -> None:
    table: Any = made_result(points=[{"n": 1}, {"mode": "b"}, {"n": float("nan")}], samples=1).dataframe()
    assert table["n"].dtype.kind == "f"
    assert table.groupby("round")["n"].mean().tolist() == [1.0]
    assert table["mode"].isna().tolist() == [True] * 3 + [False] * 3 + [True] * 3


@pytest.mark.parametrize("failures", [1, 2])
def test_columns_of_numbers_have_no_other_type_where_samples_failed(failures: int) -> None:
    table: Any = made_result(samples=2, failures=lambda implementation, point: failures).dataframe()
    assert [table[name].dtype.kind for name in NUMBERS] == ["f"] * len(NUMBERS)
    assert table["seconds"].isna().sum() == failures
    assert table["failure"].dropna().tolist() == ["raised"] * failures


def test_without_failures_the_number_of_a_value_is_a_whole_one() -> None:
    assert made_result(samples=2).dataframe()["value"].dtype.kind == "i"

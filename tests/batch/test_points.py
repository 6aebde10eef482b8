"""Points: the product and the pairs of values, their order, and what is refused."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobrunner import SpecError
from jobrunner.batch import Points, sweep, zip_points
from jobrunner.batch.values import parse_range

axes = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]), st.lists(st.integers(), min_size=1, max_size=4, unique=True), min_size=1
)


@given(axes)
def test_a_sweep_is_the_product_in_the_order_of_itertools(values: dict[str, list[int]]) -> None:
    points = sweep(**values)
    product = [dict(zip(values, row, strict=True)) for row in itertools.product(*values.values())]
    assert list(points) == product
    assert points == product
    assert [points[i] for i in range(len(points))] == product
    assert [points[i - len(points)] for i in range(len(points))] == product
    assert points[1:3] == product[1:3]


def test_zipped_lists_advance_together_and_multiply_with_a_sweep() -> None:
    points = sweep(size=[16, 32]) * zip_points(a=[1, 2], b=["x", "y"])
    assert list(points) == [
        {"size": 16, "a": 1, "b": "x"},
        {"size": 16, "a": 2, "b": "y"},
        {"size": 32, "a": 1, "b": "x"},
        {"size": 32, "a": 2, "b": "y"},
    ]
    assert points.names == ("size", "a", "b")


def test_no_axes_are_one_point_without_parameters() -> None:
    assert list(Points()) == [{}]


def test_varying_parameters_are_those_with_several_values() -> None:
    assert sweep(size=[16, 32], mode=["fast"]).varying() == ("size",)


def test_a_million_points_are_not_held_in_memory() -> None:
    points = sweep(a=range(1000), b=parse_range("b", "1:1000"))
    assert len(points) == 10**6
    assert points[-1] == {"a": 999, "b": 1000}


def test_an_index_beyond_the_points_raises() -> None:
    with pytest.raises(IndexError):
        sweep(a=[1])[1]


def test_points_differ_from_what_is_no_sequence_of_them() -> None:
    assert sweep(a=[1]) != 1
    assert sweep(a=[1]) != "a"
    assert sweep(a=[1]) != [{"a": 2}]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, "without parameters"),
        ({"a": []}, "a: no values"),
        ({"a": 1}, "a: expected a list"),
        ({"a": "text"}, "a: expected a list"),
        ({"a": {"b": 1}}, "a: expected a list"),
        ({"a": [1, float("nan")]}, "a: expected finite"),
        ({"a": [[float("inf")]]}, "a: expected finite"),
        ({"a": [1, 2, 1]}, "a=1 stands twice"),
        ({"a b": [1]}, "a b: expected a parameter's name"),
        ({"class": [1]}, "class: expected a parameter's name"),
        ({"a": range(10**4), "b": range(10**4)}, "100,000,000 points"),
    ],
)
def test_a_sweep_that_is_wrong_is_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        sweep(**values)


def test_an_endless_iterator_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobrunner.batch.points.MAX_POINTS", 1000)
    with pytest.raises(SpecError, match="a: more values than the bound of 1,000"):
        sweep(a=itertools.count())


def test_what_only_looks_equal_is_no_duplicate() -> None:
    assert len(sweep(a=[1, 1.0, True, "1"])) == 4


def test_lists_of_different_lengths_are_not_zipped() -> None:
    with pytest.raises(SpecError, match="a has 2, b has 3"):
        zip_points(a=[1, 2], b=[1, 2, 3])
    with pytest.raises(SpecError, match="nothing to zip"):
        zip_points()


def test_a_parameter_in_two_axes_is_refused() -> None:
    with pytest.raises(SpecError, match="a: the parameter is given twice"):
        sweep(a=[1]) * zip_points(a=[2])


def test_arrays_are_taken_as_pythons_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    points = sweep(a=numpy.linspace(0, 1, 3), b=[numpy.int64(1)])
    assert list(points)[1] == {"a": 0.5, "b": 1}
    assert type(points[0]["b"]) is int

"""Points: the product and the pairs of values, their order, and what is refused."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner import SpecError
from jobrunner.batch import Points, as_points, canonical_json, point_key, sweep, zip_points
from jobrunner.batch.values import MAX_POINTS, parse_range

axes = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]), st.lists(st.integers(), min_size=1, max_size=4, unique=True), min_size=1
)


@settings(deadline=None)
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
        ({"a": [1, 2, 1]}, "a=1 stands twice: each point runs once; say replicates=N to repeat points"),
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


scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.sampled_from(["", "1", "a"])
values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.sampled_from(["x", "y"]), scalars)
rows = st.dictionaries(st.sampled_from(["a", "b", "c"]), values)


def told(points: Sequence[Mapping[str, Any]]) -> list[str]:
    return [canonical_json(point) for point in points]


def distinct(given_rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({canonical_json(row): row for row in given_rows}.values())


@settings(deadline=None)
@given(st.lists(rows, min_size=1).map(distinct))
def test_points_given_one_by_one_stay_what_they_are(given_rows: list[dict[str, Any]]) -> None:
    points = as_points(iter(given_rows))
    assert told(points) == told(given_rows)
    assert told([points[i] for i in range(len(points))]) == told(given_rows)
    assert points.names == tuple(dict.fromkeys(name for row in given_rows for name in row))
    assert set(points.common) == set.intersection(*(set(row) for row in given_rows))
    told_apart = {name: {canonical_json([row[name]] if name in row else []) for row in given_rows} for name in "abc"}
    assert set(points.varying()) == {name for name, different in told_apart.items() if len(different) > 1}


@settings(deadline=None)
@given(st.lists(rows, min_size=1).map(distinct), axes)
def test_points_given_one_by_one_are_multiplied_with_others(
    given_rows: list[dict[str, Any]], others: dict[str, list[int]]
) -> None:
    swept = sweep(**{f"other_{name}": each for name, each in others.items()})
    assert told(as_points(given_rows) * swept) == told([{**row, **other} for row in given_rows for other in swept])
    assert told(swept * as_points(given_rows)) == told([{**row, **other} for other in swept for row in given_rows])


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from("abc"), st.sampled_from([[1], [2, 1], [3, 1, 2]])), st.sampled_from([[1], [2, 1]])
)
def test_iteration_gives_the_points_in_the_order_of_their_indices(swept: dict[str, list[int]], last: list[int]) -> None:
    points = as_points([{"x": 1}, {"z": 1, "y": 2}]) * sweep(first=[1], **swept) * zip_points(y_=last, z_=last)
    assert [list(point.items()) for point in points] == [list(points[i].items()) for i in range(len(points))]


def test_points_are_taken_as_they_are() -> None:
    points = sweep(a=[1, 2])
    assert as_points(points) is points
    assert list(as_points([{}])) == [{}]
    assert list(as_points([MappingProxyType({"a": (1, (2,)), "b": {"x": (3,)}})])) == [{"a": [1, [2]], "b": {"x": [3]}}]


def test_numbers_of_numpy_are_taken_as_pythons() -> None:
    numpy = pytest.importorskip("numpy")
    points = as_points([{"a": numpy.int64(1), "b": numpy.arange(2), "c": numpy.float64(0.5)}])
    assert told(points) == ['{"a":1,"b":[0,1],"c":0.5}']
    assert {type(value) for value in points[0].values()} == {int, list, float}
    with pytest.raises(SpecError, match="finite"):
        as_points([{"a": numpy.float32("nan")}])


CIRCULAR: list[Any] = []
CIRCULAR.append(CIRCULAR)


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ([], "points: no points"),
        (3, "points: expected a list of mappings"),
        ({"a": 1}, "points: expected a list of mappings"),
        ("text", "points: expected a list of mappings"),
        ([{"a": 1}, 3], r"points\[1\]: expected a mapping of parameters, found 3"),
        ([{"a b": 1}], r"points\[0\]: a b: expected a parameter's name"),
        ([{3: 1}], r"points\[0\]: expected a parameter's name \(a Python identifier\), found 3"),
        ([{"a": 1}, {"a": float("nan")}], r"points\[1\]: a: expected finite numbers, found nan"),
        ([{"a": [{"x": float("inf")}]}], r"points\[0\]: a: expected finite numbers, found inf"),
        ([{"a": 1}, {"a": 1, "b": object()}], r"points\[1\]: b: expected what has a JSON form .*object"),
        ([{"a": b"1"}], r"points\[0\]: a: expected what has a JSON form"),
        ([{"a": {1: 2}}], r"points\[0\]: a: expected what has a JSON form .*the key 1 of a mapping is no text"),
        ([{"a": CIRCULAR}], r"points\[0\]: a: expected what has a JSON form"),
        ([{"a": 1}, {"b": 1}, {"a": 1}], r"points\[2\]: a=1 stands twice \(as points\[0\]\): .*say replicates=N"),
        ([{"a": 1, "b": 2}, {"b": 2, "a": 1}], r"points\[1\]: b=2, a=1 stands twice"),
        ([{}, {}], r"points\[1\]: the point without parameters stands twice"),
    ],
)
def test_points_that_are_wrong_are_refused(points: Any, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        as_points(points)


def test_endless_points_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobrunner.batch.points.MAX_POINTS", 1000)
    with pytest.raises(SpecError, match="more points than the bound of 1,000"):
        as_points({"a": i} for i in itertools.count())


def test_the_key_is_the_documented_hash() -> None:
    text = b'{"parameters":{"size":16,"temperature":2.5},"replicate":3}'
    assert point_key({"temperature": 2.5, "size": 16}, 3) == hashlib.sha256(text).digest()[:16]


@settings(deadline=None)
@given(rows, rows, st.integers(0, 2), st.integers(0, 2))
def test_keys_are_equal_just_when_points_are(one: dict[str, Any], two: dict[str, Any], r: int, s: int) -> None:
    same = (canonical_json(one), r) == (canonical_json(two), s)
    assert (point_key(one, r) == point_key(two, s)) == same
    assert point_key(one, r) == point_key(json.loads(canonical_json(one)), r)


def test_a_parameter_without_a_json_form_has_no_key() -> None:
    with pytest.raises(SpecError, match="b: expected what has a JSON form"):
        point_key({"a": 1, "b": object()})
    with pytest.raises(SpecError, match="b: expected finite"):
        point_key({"a": 1, "b": float("nan")})


@settings(deadline=None)
@given(st.lists(rows, min_size=1).map(distinct), st.lists(rows, min_size=1).map(distinct))
def test_digests_of_lists_are_equal_just_when_the_points_are(one: Any, two: Any) -> None:
    assert (as_points(one).digest() == as_points(two).digest()) == (told(one) == told(two))
    assert as_points(one).digest() == as_points(json.loads(json.dumps(one))).digest()


@settings(deadline=None)
@given(axes, axes)
def test_products_of_one_digest_have_the_same_points(one: dict[str, list[int]], two: dict[str, list[int]]) -> None:
    mine, theirs = sweep(**one), sweep(**two)
    assert (mine.digest() == theirs.digest()) == (told(mine) == told(theirs))


def test_a_digest_tells_order_types_and_ends_apart() -> None:
    million = range(1_000_000)
    different = [
        Points(),
        sweep(a=[1, 2]),
        sweep(a=[2, 1]),
        sweep(a=[1.0, 2.0]),
        sweep(a=["1", "2"]),
        sweep(b=[1, 2]),
        sweep(a=[1]),
        sweep(a=[1, 2], b=[1, 2]),
        sweep(b=[1, 2], a=[1, 2]),
        zip_points(a=[1, 2], b=[1, 2]),
        sweep(a=million),
        sweep(a=million[::-1]),
        sweep(a=million[1:]),
        sweep(a=million[:-1]),
        sweep(a=million[::2]),
        sweep(a=parse_range("a", "0:999999:1.0")),
        as_points([{"a": 1}, {}]),
        as_points([{"a": 1}, {"a": None}]),
        as_points([{"a": [1]}, {"a": []}]),
    ]
    assert len({points.digest() for points in different}) == len(different)


def test_a_digest_does_not_depend_on_how_the_points_were_said() -> None:
    assert sweep(a=[1, 2, 3]).digest() == sweep(a=range(1, 4)).digest() == sweep(a=parse_range("a", "1:3")).digest()
    assert sweep(a=[1.0, 1.5]).digest() == sweep(a=parse_range("a", "1:1.5:0.5")).digest()
    assert sweep(a=range(20_000)).digest() == sweep(a=parse_range("a", "0:19999")).digest()
    assert zip_points(a=[1, 2], b=[3, 4]).digest() == as_points([{"b": 3, "a": 1}, {"b": 4, "a": 2}]).digest()
    assert (sweep(a=[1]) * sweep(b=[1, 2])).digest() == sweep(b=[1, 2], a=[1]).digest()


def test_the_digest_of_a_large_product_does_not_go_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    points = sweep(a=range(1000), b=parse_range("b", "1:1000"), c=range(MAX_POINTS // 10**6))

    def refuse(*_: Any) -> Any:
        raise AssertionError("went through the points")

    monkeypatch.setattr(Points, "__iter__", refuse)
    monkeypatch.setattr(Points, "__getitem__", refuse)
    monkeypatch.setattr("jobrunner.batch.points._product", refuse)
    assert len(points.digest()) == 64


def test_values_without_a_json_form_have_no_digest() -> None:
    with pytest.raises(SpecError, match="b: expected what has a JSON form"):
        sweep(a=[1], b=[object()]).digest()
    with pytest.raises(SpecError, match=r"b: .*the key 1 of a mapping is no text"):
        sweep(b=[{1: 2}]).digest()


def test_a_zipped_parameter_of_one_value_does_not_vary() -> None:
    points = zip_points(a=[1, 2], b=["x", "x"], c=[1, 1.0], d=[[1], [1]])
    assert points.varying() == ("a", "c")

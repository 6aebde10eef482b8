"""The grammar of parameter values: what each text means, and what is refused."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobrunner import SpecError
from jobrunner.batch.values import MAX_POINTS, NumberRange, canonical_json, parse_range, parse_values, plain

finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | finite | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def read(text: str) -> list[Any]:
    return list(parse_values("key", text))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("16", [16]),
        ("0.5", [0.5]),
        (".5", [0.5]),
        ("5.", [5.0]),
        ("+3", [3]),
        ("-1e3", [-1000.0]),
        ("true", [True]),
        ("null", [None]),
        ('"fast"', ["fast"]),
        ('""', [""]),
        ('"1:2"', ["1:2"]),
        ("[1, 2]", [[1, 2]]),
        ('{"a": 1}', [{"a": 1}]),
        ("16,32,64", [16, 32, 64]),
        ("16, fast ,true", [16, "fast", True]),
        ('"a,b","c"', ["a,b", "c"]),
        ("[1,2],[3,4]", [[1, 2], [3, 4]]),
        ("fast", ["fast"]),
        ("two words", ["two words"]),
        ("007", ["007"]),
        ("http://localhost:80", ["http://localhost:80"]),
        ("a:b", ["a:b"]),
        ("16:19", [16, 17, 18, 19]),
        ("0:10:5", [0, 5, 10]),
        ("0:9:5", [0, 5]),
        ("8:0:-4", [8, 4, 0]),
        ("3:3", [3]),
        ("1:2:0.5", [1.0, 1.5, 2.0]),
        ("1.5:3.5", [1.5, 2.5, 3.5]),
        ("1e2:3e2:1e2", [100.0, 200.0, 300.0]),
    ],
)
def test_a_text_means(text: str, values: list[Any]) -> None:
    found = read(text)
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected a value"),
        ("  ", "expected a value"),
        ("1:2:0", "the step is 0"),
        ("1:2:0.0", "the step is 0"),
        ("1:2:1e-999999999", "too small"),
        ("1e-999999999:2", "too small"),
        ("1:1e999999999", "too large"),
        ("1:2:-1", "leads away"),
        ("2:1", "leads away"),
        ("1:", "never ends"),
        ("1::2", "never ends"),
        (":2", "the start is missing"),
        ("1:inf", "no finite number"),
        ("1:nan", "no finite number"),
        ("nan:1", "no finite number"),
        ("-inf:1", "no finite number"),
        ("1:2:fast", "no finite number"),
        ("1:2:3:4", "4 parts"),
        ("0:10000000", "10,000,001 numbers"),
        ("0:1:1e-300", "more than 10^15"),
        ("nan", "no finite number"),
        ("NaN", "no finite number"),
        ("-Infinity", "no finite number"),
        ("inf", "no finite number"),
        ("1e999", "finite"),
        ("[1, 1e999]", "finite"),
        ('{"a": [NaN]}', "finite"),
        ("16,nan", "no finite number"),
        ("16,,32", "an item is missing"),
        ("16,", "an item is missing"),
        (",", "an item is missing"),
        ("1:3,7", "a range can't stand in a list"),
    ],
)
def test_a_text_that_means_nothing_is_refused_with_the_key_and_the_reason(text: str, reason: str) -> None:
    with pytest.raises(SpecError, match=f"^key: .*{reason.replace('^', '.')}") as caught:
        read(text)
    assert caught.value.key == "key"


def test_the_contracts_range_has_21_points_and_ends_at_the_stop() -> None:
    values = read("1.5:3.5:0.1")
    assert len(values) == 21
    assert values[-1] == 3.5
    assert values == [round(1.5 + i / 10, 1) for i in range(21)]


def test_ten_million_points_are_allowed_and_take_no_memory() -> None:
    numbers = parse_range("key", f"1:{MAX_POINTS}")
    assert len(numbers) == MAX_POINTS
    assert numbers[-1] == MAX_POINTS


@given(st.integers(), st.integers(1, 10**6), st.integers(0, 1000), st.integers(0, 12), st.booleans())
def test_a_range_never_drifts(start: int, step: int, count: int, digits: int, falling: bool) -> None:
    """Each number is the float nearest to start + i * step, exactly; the stop is the last, if it is hit."""
    scale = 10**digits
    step = -step if falling else step

    def written(number: int) -> str:
        sign, number = ("-" if number < 0 else ""), abs(number)
        return f"{sign}{number // scale}.{number % scale:0{digits}d}" if digits else f"{sign}{number}"

    stop = start + step * count
    values = read(f"{written(start)}:{written(stop)}:{written(step)}")
    assert values == [
        float(Fraction(start + i * step, scale)) if digits else start + i * step for i in range(count + 1)
    ]
    assert all(isinstance(value, float if digits else int) for value in values)


@given(json_values)
def test_whole_json_is_one_value(value: Any) -> None:
    assert read(json.dumps(value)) == [value]


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        values = parse_values("key", text)
    except SpecError:
        return
    assert len(values) >= 1


@given(st.lists(json_values.filter(lambda value: value is not None), min_size=2, max_size=5))
def test_a_comma_separated_list_of_json_gives_its_items(items: list[Any]) -> None:
    assert read(",".join(map(json.dumps, items))) == items


def test_a_number_range_is_a_sequence() -> None:
    numbers = NumberRange(15, 1, 3, 10)
    assert numbers[-1] == 1.7
    assert numbers[1:] == [1.6, 1.7]
    assert repr(numbers) == "<3 numbers from 1.5 to 1.7>"
    with pytest.raises(IndexError):
        numbers[3]


@given(json_values)
def test_canonical_json_reads_back_and_is_ascii(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert text.isascii()


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical_json({"b": 1, "a": [2, {"d": 3, "c": 4}]}) == '{"a":[2,{"c":4,"d":3}],"b":1}'


def test_numpys_numbers_are_pythons() -> None:
    numpy = pytest.importorskip("numpy")
    value = plain({"a": numpy.float64(0.5), "b": numpy.arange(2), "c": (numpy.int8(3),)})
    assert value == {"a": 0.5, "b": [0, 1], "c": [3]}
    assert type(value["a"]) is float
    assert type(value["c"][0]) is int

"""What is stored of a result reads back as it was; a pickle that somebody else could have written is not loaded."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobrunner.batch.encoding import JSON, PICKLE, WITHHELD, Encoded, decode, encode
from jobrunner.errors import SerializationError

_PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
_VALUES = st.recursive(
    _PLAIN | st.just(math.nan) | st.binary() | st.complex_numbers(allow_nan=False),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)


def _types(value: Any) -> Any:
    """The types in `value`, at every place."""
    if isinstance(value, dict):
        return dict, [(_types(key), _types(each)) for key, each in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [_types(each) for each in value]
    return type(value)


@given(_VALUES)
def test_a_value_reads_back_equal_and_of_the_same_type(value: Any) -> None:
    found = decode(encode(value), trusted=True)
    assert repr(found) == repr(value)
    assert _types(found) == _types(value)


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ({"energy": -1.5, "ok": True, "steps": [1, 2], "note": None}, JSON),
        ("\udcff", JSON),
        (-0.0, JSON),
        (2**80, JSON),
        ((1, 2), PICKLE),
        ([1, (2, 3)], PICKLE),
        ({1: "a"}, PICKLE),
        (math.nan, PICKLE),
        (math.inf, PICKLE),
        (b"x", PICKLE),
        ({1, 2}, PICKLE),
    ],
)
def test_json_is_taken_where_it_says_the_same(value: Any, form: str) -> None:
    encoded = encode(value)
    assert encoded.format == form
    assert repr(decode(encoded, trusted=True)) == repr(value)


def test_a_number_too_long_for_json_is_pickled() -> None:
    encoded = encode(10**5000)
    assert encoded.format == PICKLE
    assert decode(encoded, trusted=True) == 10**5000


class Grumpy(dict[str, int]):
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")


class Unpicklable:
    def __reduce__(self) -> Any:
        raise RuntimeError("stays here")


def test_a_value_whose_methods_raise_is_pickled_or_refused_by_name() -> None:
    assert encode(Grumpy()).format == PICKLE
    with pytest.raises(SerializationError, match="the result can't be stored: RuntimeError: stays here"):
        encode(Unpicklable())
    with pytest.raises(SerializationError, match="can't be stored"):
        encode([Unpicklable()])


def test_a_nesting_that_is_too_deep_is_refused_and_no_crash() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(SerializationError, match=r"the result can't be stored: .*recursion"):
        encode(value)


@pytest.mark.parametrize("value", ["x" * 200, b"x" * 200])
def test_a_result_larger_than_a_store_takes_is_refused(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobrunner.batch.encoding._MOST", 150)
    with pytest.raises(SerializationError, match="a store has room for 150 B; write it to a file"):
        encode(value)


class Trap:
    """Makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_that_is_not_trusted_is_not_loaded(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    trap = Encoded(PICKLE, pickle.dumps(Trap(sprung)))
    assert decode(trap, trusted=False) is WITHHELD
    assert not sprung.exists()
    decode(trap, trusted=True)
    assert sprung.exists()


def test_json_is_read_whoever_wrote_it() -> None:
    assert decode(Encoded(JSON, '{"x":1}'), trusted=False) == {"x": 1}


def test_text_called_a_pickle_is_never_loaded_as_one() -> None:
    """Anybody who can write a store can write any pair of columns."""
    assert decode(Encoded(PICKLE, "[1]"), trusted=False) == [1]


@pytest.mark.parametrize("data", [b"", b"no pickle", b"cno_such_module\nf\n."])
def test_a_pickle_that_cannot_be_loaded_says_why(data: bytes) -> None:
    with pytest.raises(SerializationError, match="the stored result can't be loaded: "):
        decode(Encoded(PICKLE, data), trusted=True)

"""The output file: whole lines as jobs end, columns that hold, and files that can't be written."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import json
import math
import os
import stat
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobrunner import SpecError, StoreError
from jobrunner.batch import Outcome, OutcomeStatus, flatten, open_output, to_json
from jobrunner.batch.columns import as_columns


def done(index: int, value: Any, **parameters: Any) -> Outcome:
    return Outcome(index=index, parameters=parameters, status=OutcomeStatus.DONE, value=value)


def failed(index: int, **parameters: Any) -> Outcome:
    error = ValueError("bad\nthing, really")
    return Outcome(index=index, parameters=parameters, status=OutcomeStatus.FAILED, error=error)


def cancelled(index: int, **parameters: Any) -> Outcome:
    return Outcome(index=index, parameters=parameters, status=OutcomeStatus.CANCELLED)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_lines_are_there_as_soon_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with open_output(path, ["size", "mode"]) as writer:
        writer.write(done(0, {"energy": -1.5, "m": {"mean": 0.1}}, size=16, mode="a,b"))
        assert path.read_text() == ('size,mode,status,energy,m.mean,run_s,error,extra\n16,"a,b",done,-1.5,0.1,,,\n')
        writer.write(failed(1, size=32, mode="c"))
        assert rows(path)[1]["error"] == "ValueError: bad thing, really"
        assert rows(path)[1]["status"] == "failed"


def test_csv_lines_of_failures_before_the_first_result_wait_for_the_header(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with open_output(path, ["x"]) as writer:
        writer.write(failed(0, x=0))
        assert path.read_text() == ""
        writer.write(done(1, 5, x=1))
        assert [row["status"] for row in rows(path)] == ["failed", "done"]
        assert rows(path)[1]["result"] == "5"


def test_csv_of_nothing_but_failures_has_them_all(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with open_output(path, ["x"]) as writer:
        writer.write(failed(0, x=0))
        writer.write(failed(1, x=1))
    assert [row["x"] for row in rows(path)] == ["0", "1"]


def test_csv_columns_that_come_later_go_into_extra(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with open_output(path, ["x"]) as writer:
        writer.write(done(0, {"a": 1, "b": None}, x=0))
        writer.write(done(1, {"b": True, "c": [1, 2]}, x=1))
        writer.write(done(2, 7, x=2))
    found = rows(path)
    assert [row["a"] for row in found] == ["1", "", ""]
    assert found[1]["b"] == "true"
    assert json.loads(found[1]["extra"]) == {"c": [1, 2]}
    assert json.loads(found[2]["extra"]) == {"result": 7}


def test_csv_names_that_collide_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with open_output(path, ["size", "status"]) as writer:
        writer.write(done(0, {"size": 1, "error": 2, "result.size": 3}, size=16, status="on"))
    assert rows(path) == [
        {
            "size": "16",
            "parameter.status": "on",
            "status": "done",
            "result.size": "1",
            "result.error": "2",
            "result.result.size": "3",
            "run_s": "",
            "error": "",
            "extra": "",
        }
    ]


def test_json_lines_hold_everything(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with open_output(path, ["x"]) as writer:
        writer.write(done(1, {"a": math.inf, "b": {"c": (1, 2)}}, x=[1]))
        assert json.loads(path.read_text()) == {
            "index": 1,
            "parameters": {"x": [1]},
            "seed": None,
            "status": "done",
            "result": {"a": "Infinity", "b": {"c": [1, 2]}},
            "error": None,
            "run_s": None,
        }
        writer.write(failed(0, x=0))
    assert json.loads(path.read_text().splitlines()[1])["error"] == "ValueError: bad thing, really"


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_cancelled_points_are_not_written_and_an_old_file_stays_until_the_first_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("the results of last night")
    with open_output(path, ["x"]) as writer:
        writer.write(cancelled(0, x=0))
    assert path.read_text() == "the results of last night"
    with open_output(path, ["x"]) as writer:
        writer.write(done(0, 1, x=0))
    assert "last night" not in path.read_text()


def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    old_mask = os.umask(0)
    try:
        with open_output(tmp_path / "out.csv", []):
            pass
    finally:
        os.umask(old_mask)
    assert stat.S_IMODE((tmp_path / "out.csv").stat().st_mode) == 0o600


def test_an_unknown_ending_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"ending in \.csv or \.jsonl"):
        open_output(tmp_path / "out.txt", [])


def test_a_file_that_cannot_be_opened_is_told_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file or directory") as caught:
        open_output(tmp_path / "none" / "out.csv", [])
    assert caught.value.path == str(tmp_path / "none" / "out.csv")
    (tmp_path / "directory.csv").mkdir()
    with pytest.raises(StoreError, match="directory"):
        open_output(tmp_path / "directory.csv", [])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /dev/full")
def test_a_full_disk_is_told(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.symlink_to("/dev/full")
    with open_output(path, ["x"]) as writer, pytest.raises(StoreError, match="No space left"):
        writer.write(done(0, 1, x=0))


@dataclasses.dataclass
class Measured:
    mean: float
    more: dict[str, int]


Pair = namedtuple("Pair", ["left", "right"])


@pytest.mark.parametrize(
    ("value", "columns"),
    [
        (1.5, {"result": 1.5}),
        (None, {"result": None}),
        ([1, 2], {"result": [1, 2]}),
        ({}, {}),
        ({"a": {}}, {"a": {}}),
        ({1: {"b": 2}}, {"1.b": 2}),
        (Measured(0.5, {"n": 3}), {"mean": 0.5, "more.n": 3}),
        (Pair(1, 2), {"left": 1, "right": 2}),
        (1j, {"result": "1j"}),
        ({"a": {"b": 1}, "a.b": 2}, {"a.b": 1, "result.a.b": 2}),
    ],
)
def test_results_become_columns(value: Any, columns: dict[str, Any]) -> None:
    assert flatten(value) == columns


def test_numpys_results_become_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    value = {"a": numpy.float32(0.5), "b": numpy.array([[1, 2]]), "c": numpy.bool_(True), "d": numpy.array(2.0)}
    found = flatten(value)
    assert found == {"a": 0.5, "b": [[1, 2]], "c": True, "d": 2.0}
    assert json.dumps(found)


def test_in_memory_the_same_columns_have_the_values_themselves() -> None:
    error, day = float("nan"), datetime.datetime(2020, 1, 1)
    value = {"loss": {"mean": error, "range": (0, math.inf)}, "at": day, "z": 1j, 1: b"ab", "pair": Pair(day, None)}
    found = as_columns(value)
    assert list(found) == list(flatten(value))
    assert found.pop("loss.mean") is error
    assert found == {
        "loss.range": [0, math.inf],
        "at": day,
        "z": 1j,
        "1": b"ab",
        "pair.left": day,
        "pair.right": None,
    }
    loop: list[Any] = []
    loop.append(loop)
    assert as_columns(loop)["result"] is loop


def test_in_memory_numpys_numbers_are_pythons_and_its_arrays_and_times_stay() -> None:
    numpy: Any = pytest.importorskip("numpy")
    array, moment = numpy.arange(2), numpy.datetime64("2020-01-01", "ns")
    found = as_columns(
        {"a": numpy.float32(0.5), "b": array, "c": numpy.bool_(True), "d": numpy.array(2.0), "e": moment}
    )
    assert found == {"a": 0.5, "b": array, "c": True, "d": 2.0, "e": moment}
    assert [type(found[name]) for name in "acd"] == [float, bool, float]
    assert found["b"] is array


class Quantity:
    """As of packages for physical units: an array's interface, and no way to lose the unit."""

    dtype, ndim = "float64", 0

    def tolist(self) -> Any:
        raise NotImplementedError

    def __repr__(self) -> str:
        return "3.0 m"


def test_what_has_a_unit_keeps_it() -> None:
    length = Quantity()
    assert as_columns(length)["result"] is length
    assert flatten(length) == {"result": "3.0 m"}


class Stubborn:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_what_resists_is_written_all_the_same() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert to_json(loop) == "[[...]]"
    assert "Stubborn object" in to_json(Stubborn())


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
        lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.integers() | st.text(), inner),
        max_leaves=10,
    )
)
def test_any_result_is_valid_json(value: Any) -> None:
    json.loads(json.dumps(to_json(value), allow_nan=False))
    json.dumps(flatten(value), allow_nan=False)

"""The table that a person reads: numbers with their errors, constant parameters apart, what is missing left blank."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from jobrunner.batch import Points, flatten, sweep
from jobrunner.cli.table import ResultTable, describe, shorten


def printed(points: Points, results: list[Any]) -> list[list[str]]:
    table = ResultTable("name", points.names, points.varying())
    for parameters, value in zip(points, results, strict=True):
        if not isinstance(value, Exception):
            table.add(parameters, flatten(value))
    file = io.StringIO()
    table.print(file)
    return [line.split() for line in file.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (-1.745612, 0.00123, "-1.7456(12)"),
        (0.5, 0.0996, "0.50(10)"),
        (0.5, 0.0994, "0.500(99)"),
        (12.34, 1.5, "12.3(15)"),
        (123.4, 15.0, "123(15)"),
        (1234.0, 150.0, "1234+-1.5e+02"),
        (1.0, 0.0, "1"),
        (1.0, 1e-20, "1+-1e-20"),
        (1.0, "NaN", "1"),
    ],
)
def test_a_value_is_shown_with_its_error(value: float, error: Any, shown: str) -> None:
    lines = printed(sweep(x=[7]), [{"e": value, "e_error": error}])
    assert "".join(lines[1][1:]).startswith(shown)


def test_a_mean_is_shown_with_its_standard_error() -> None:
    means = [{"e_mean": 1.2342, "e_sem": 0.0051, "replicates": 3}, {"e_mean": 2.0, "e_sem": None, "replicates": 1}]
    assert printed(sweep(x=[1, 2]), means) == [
        ["x", "e_mean", "replicates"],
        ["1", "1.2342(51)", "3"],
        ["2", "2", "1"],
    ]


def test_an_older_result_of_another_fixed_parameter_is_told_apart() -> None:
    table = ResultTable("name", ["x", "fixed"], ["x"])
    table.add({"x": 1, "fixed": 5}, {"result": 1})
    table.add({"x": 2, "fixed": 6}, {"result": 2})
    file = io.StringIO()
    table.print(file)
    assert [line.split() for line in file.getvalue().splitlines()] == [
        ["x", "fixed", "result"],
        ["1", "5", "1"],
        ["2", "6", "2"],
    ]


def test_no_text_of_a_result_steers_the_terminal() -> None:
    table = ResultTable("na\x1b[1mme", ["x"], ["x"])
    table.add({"x": "\x1b]0;title\x07"}, {"[red]key\x1b[31m": "\x9b2J [bold]"})
    table.add({"x": "y"}, {})
    file = io.StringIO()
    table.print(file)
    assert "\x1b" not in file.getvalue()
    assert "\x9b" not in file.getvalue()
    assert r"\x1b]0;title\x07" in file.getvalue()
    assert r"[red]key\x1b[31m" in file.getvalue()
    assert r"\x9b2J [bold]" in file.getvalue()


def test_an_error_without_a_value_has_a_column_of_its_own() -> None:
    assert printed(sweep(x=[1]), [{"fit_error": 0.5}]) == [["x", "fit_error"], ["1", "0.5"]]


def test_constant_parameters_are_told_once_and_failures_have_no_row() -> None:
    points = sweep(x=[1, 2, 3], mode=["fast"])
    assert printed(points, [10, ValueError(), {"result": None}]) == [
        ["name:", "mode=fast"],
        ["x", "result"],
        ["1", "10"],
        ["3", "-"],
    ]


def test_results_with_different_columns_share_a_table() -> None:
    assert printed(sweep(x=[1, 2]), [{"a": 1}, {"b": True}]) == [["x", "a", "b"], ["1", "1"], ["2", "true"]]


def test_a_result_named_like_a_parameter_is_told_apart() -> None:
    assert printed(sweep(x=[1]), [{"x": 5}])[0] == ["x", "result.x"]


def test_nothing_is_printed_of_nothing() -> None:
    assert printed(sweep(x=[1]), [ValueError()]) == []


def test_texts_for_people_are_short_and_in_one_line() -> None:
    assert shorten("a\n  b", 10) == "a b"
    assert len(describe({"x": "y" * 100})) < 50
    assert describe({"x": 0.1, "y": [1, 2]}) == "x=0.1 y=[1, 2]"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_what_fits_with_folded_headers_and_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("TERM", "xterm")  # rich takes a dumb one for 80 columns wide
    table = ResultTable("name", ["x"], [])
    value = {"energy_of_the_lattice": -1.5, "second": 2, "third_one": 12345678, "fourth": 4}
    table.add({"x": 1}, flatten(value))
    file = Terminal()
    table.print(file)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in file.getvalue().splitlines()]
    assert [line.split() for line in lines] == [
        ["energy_"],
        ["of_"],
        ["the_", "third_"],
        ["x", "lattice", "second", "one"],
        ["1", "-1.5", "2", "12345678"],
        ["too", "wide", "to", "be", "shown:", "fourth;"],
        ["--output", "keeps", "all"],
    ]
    assert max(map(len, lines)) <= 30

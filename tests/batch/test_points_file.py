"""Points from CSV and JSON Lines: what a line means, and where each mistake stands."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobrunner import SpecError
from jobrunner.batch import read_points


def points_file(directory: Path, name: str, text: str | bytes) -> Path:
    path = directory / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_cell_is_a_json_scalar_or_else_its_text(tmp_path: Path) -> None:
    text = 'a,b,c,d\n16,0.5,fast,true\n\n-1e3, null ,1:2,True\n007,[1],"x,""y""","""16"""\n'
    points = read_points(points_file(tmp_path, "points.csv", text))
    assert list(points) == [
        {"a": 16, "b": 0.5, "c": "fast", "d": True},
        {"a": -1000.0, "b": None, "c": "1:2", "d": "True"},
        {"a": "007", "b": "[1]", "c": 'x,"y"', "d": "16"},
    ]
    assert points.names == ("a", "b", "c", "d")


@pytest.mark.parametrize("text", ["\ufeffa,b\r\n1,2\r\n", "\n a , b \n1,2", "a,b\n  \n1, 2\n\n", '"a","b"\n"1","2"\n'])
def test_files_of_spreadsheets_are_read(tmp_path: Path, text: str) -> None:
    assert list(read_points(points_file(tmp_path, "POINTS.CSV", text))) == [{"a": 1, "b": 2}]


def test_a_quoted_cell_may_have_line_breaks(tmp_path: Path) -> None:
    path = points_file(tmp_path, "points.csv", 'a\n"x\n\ny"\n\n"z\n"\nnan\n')
    with pytest.raises(SpecError) as caught:
        read_points(path)
    assert caught.value.line == 8
    path.write_text('a\n"x\n\ny"\n')
    assert list(read_points(path)) == [{"a": "x\n\ny"}]


def test_lines_of_json_are_points_of_any_shape(tmp_path: Path) -> None:
    text = '\ufeff{"size": 16, "cell": {"a": [1, 2.5, null]}}\n\n  \n{"size": 32}\r\n{}'
    points = read_points(points_file(tmp_path, "points.jsonl", text))
    assert list(points) == [{"size": 16, "cell": {"a": [1, 2.5, None]}}, {"size": 32}, {}]
    assert (points.names, points.common) == (("size", "cell"), ())


LONG = "x" * 200_000


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", None, "is empty: expected a header line"),
        ("\n \n", None, "is empty: expected a header line"),
        ("size\n", None, "has no points"),
        ("size\n\n \n", None, "has no points"),
        ("size,,b\n1,2,3\n", 1, "'': column 2: expected a header line of parameter names"),
        ("\nsize,a b\n1,2\n", 2, "a b: column 2: expected a header line"),
        ("1,2\n3,4\n", 1, "1: column 1: expected a header line"),
        ("size;mode\n1;2\n", 1, "columns are separated by commas"),
        ("class\n1\n", 1, "class: column 1: expected a header line"),
        ("size,mode, size\n1,2,3\n", 1, "size: the header has the parameter twice"),
        ("size,mode\n1,2\n\n3\n", 4, "expected 2 cells, one for each name of the header, found 1"),
        ("size,mode\n1,2,\n", 2, "expected 2 cells.*found 3"),
        ("size,mode\n1,2\n3,\n", 3, "mode: the cell is empty: expected a value"),
        ("size,mode\n,\n", 2, "size: the cell is empty"),
        ('size\n1\n""\n', 3, "size: the cell is empty"),
        ("size\n1\nNaN\n", 3, "size: expected a finite number or a text, found 'NaN'"),
        ("size\n1\n -inf\n", 3, "size: expected a finite number or a text, found '-inf'"),
        ("size\n1e999\n", 2, "size: expected a finite number or a text, found '1e999'"),
        ("size\n.5e999\n", 2, "size: expected a finite number"),
        ("size\n" + "1" * 5000 + "\n", 2, "size: expected a finite number"),
        ('size\n1\n"2\n3\n', 3, "is no valid CSV"),
        ('size\n1\n"2"3\n', 3, "is no valid CSV"),
        ("size\n1\n" + LONG + "\n", 3, "is no valid CSV: field larger"),
        ("size,mode\n1,2\n3,4\n1, 2\n", 4, r"size=1, mode=2 stands twice \(line 2 says it too\).*replicates=N"),
        (b"size\n1\n\xe9\xff\n", 3, "is no UTF-8 text"),
        ("size\n1\n".encode("utf-16"), 1, "is no UTF-8 text"),
    ],
)
def test_a_mistake_in_csv_is_told_with_file_line_and_what_was_expected(
    tmp_path: Path, text: str | bytes, line: int | None, reason: str
) -> None:
    check_refused(points_file(tmp_path, "points.csv", text), line, reason)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", None, "has no points"),
        ("\n\n", None, "has no points"),
        ('{"size": 1}\n{"size": \n', 2, "is no JSON: .* expected one JSON object a line"),
        ('{"size": 1} {"size": 2}\n', 1, "is no JSON: Extra data"),
        ('{"size": 1}\n[1, 2]\n', 2, r"expected one JSON object a line.*found \[1, 2\]"),
        ("{\n", 1, "is no JSON"),
        ('\n{"size": NaN}\n', 2, "expected finite numbers, found NaN"),
        ('{"size": [-Infinity]}\n', 1, "expected finite numbers, found -Infinity"),
        ('{"a": 1}\n{"size": {"x": 1e999}}\n', 2, "size: expected finite numbers, found inf"),
        ('{"size": 1, "size": 2}\n', 1, "the key 'size' is given twice"),
        ('{"a": {"b": 1, "c": 2, "b": 1}}\n', 1, "the key 'b' is given twice"),
        ('{"a b": 1}\n', 1, "a b: expected a parameter's name"),
        ('{"a": 1}\n{"": 1}\n', 2, "'': expected a parameter's name"),
        ('{"a": ' + "[" * 100_000 + "\n", 1, "recursion"),
        ('{"a": ' + "1" * 5000 + "}\n", 1, "expected one JSON object|digits"),
        ('{"a": 1, "b": 2}\n{"a": 2}\n\n{"b": 2, "a": 1}\n', 4, r"b=2, a=1 stands twice \(line 1 says it too\)"),
        (b'{"a": 1}\n{"a": "\xff"}\n', 2, "is no UTF-8 text"),
    ],
)
def test_a_mistake_in_json_lines_is_told_with_file_line_and_what_was_expected(
    tmp_path: Path, text: str | bytes, line: int | None, reason: str
) -> None:
    check_refused(points_file(tmp_path, "points.jsonl", text), line, reason)


def check_refused(path: Path, line: int | None, reason: str) -> None:
    with pytest.raises(SpecError, match=reason) as caught:
        read_points(path)
    assert (caught.value.file, caught.value.line) == (str(path), line)
    assert str(caught.value).startswith(f"{path}:{line}: " if line is not None else f"{path}: ")
    assert len(str(caught.value)) < 1000


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    check_refused(tmp_path / "none.csv", None, "can't be read: No such file")
    (tmp_path / "directory.jsonl").mkdir()
    check_refused(tmp_path / "directory.jsonl", None, "can't be read: Is a directory")
    check_refused(tmp_path / "points.xlsx", None, r"expected a file of points, named \*\.csv or \*\.jsonl")


@pytest.mark.parametrize(("name", "header", "row"), [("p.csv", "a\n", "{}\n"), ("p.jsonl", "", '{{"a": {}}}\n')])
def test_a_file_is_read_up_to_its_bounds(
    tmp_path: Path, name: str, header: str, row: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobrunner.batch.points.MAX_POINTS", 100)
    path = points_file(tmp_path, name, header + "".join(row.format(i) for i in range(100)))
    assert len(read_points(path)) == 100
    path.write_text(path.read_text() + row.format(100))
    check_refused(path, 101 + bool(header), "more points than the bound of 100")
    monkeypatch.setattr("jobrunner.batch.points_file.MAX_LINE_BYTES", 1000)
    path.write_text(header + row.format(1) + row.format("1" + " " * 1000))
    check_refused(path, 2 + bool(header), "is longer than 1,000 bytes")


def test_an_endless_line_is_refused_before_it_has_been_read(tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    path.symlink_to("/dev/zero")
    check_refused(path, 1, "is longer than 10,000,000 bytes")


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
names = st.sampled_from(["a", "b", "c", "größe"])
plain_values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)

# The directory may be shared by the examples, and the first text of a process takes a second to generate.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def distinct(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({json.dumps(row, sort_keys=True): row for row in rows}.values())


@unhurried
@given(st.lists(st.dictionaries(names, plain_values), min_size=1).map(distinct))
def test_lines_of_json_read_back_as_they_were_written(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = tmp_path / "points.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=bool(i % 2)) + "\n" for i, row in enumerate(rows)), "utf-8")
    read = list(read_points(path))
    assert [json.dumps(row, sort_keys=True) for row in read] == [json.dumps(row, sort_keys=True) for row in rows]


@unhurried
@given(st.lists(st.fixed_dictionaries({"a": scalars, "b": scalars}), min_size=1).map(distinct))
def test_cells_of_json_scalars_read_back_as_they_were_written(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = tmp_path / "points.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b"])
        writer.writerows([json.dumps(row["a"]), json.dumps(row["b"])] for row in rows)
    read = list(read_points(path))
    assert [json.dumps(row, sort_keys=True) for row in read] == [json.dumps(row, sort_keys=True) for row in rows]

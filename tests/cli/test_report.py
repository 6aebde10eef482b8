"""`jobrunner report`: where its page goes, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobrunner.cli.report import file_name, report
from jobrunner.errors import SpecError, StoreError
from tests.batch.report.stores import small_store
from tests.command_line import CommandLine


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a store of one batch."""
    monkeypatch.chdir(tmp_path)
    small_store(Path("jobrunner.db"))
    return tmp_path


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(report, arguments)


def test_the_page_is_named_after_the_batch_and_its_path_printed(directory: Path) -> None:
    ran = invoke()
    assert (ran.exit_code, ran.output) == (0, "small.html\n")
    assert "<h1>small</h1>" in (directory / "small.html").read_text(encoding="utf-8")


def test_the_page_goes_where_output_says(directory: Path) -> None:
    ran = invoke("--store", str(directory / "jobrunner.db"), "--name", "small", "--output", "there.html")
    assert (ran.exit_code, ran.output) == (0, "there.html\n")
    assert (directory / "there.html").exists()


def test_json_prints_the_data_and_writes_no_page(directory: Path) -> None:
    ran = invoke("--json")
    found = json.loads(ran.output)
    assert found["summary"]["done"] == 9
    assert found["failures"]["shown"][0]["parameters"] == {"x": 3, "mode": "fast"}
    assert not (directory / "small.html").exists()


def test_a_wrong_name_a_missing_store_and_an_unwritable_page_are_plain_errors() -> None:
    assert isinstance(invoke("--name", "smal").exception, SpecError)
    assert isinstance(invoke("--store", "none.db").exception, StoreError)
    assert isinstance(invoke("--output", "none/page.html").exception, StoreError)


def test_help_has_an_example() -> None:
    assert "jobrunner report --store results.db" in invoke("--help").output


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ising", "ising.html"),
        ("../../etc/passwd", "etc-passwd.html"),
        ("a b;rm -rf /", "a-b-rm-rf.html"),
        ("--output", "output.html"),
        ("", "report.html"),
        ("größe", "größe.html"),
        ("x" * 500, "x" * 100 + ".html"),
    ],
)
def test_the_file_name_is_safe_whatever_the_batch_is_called(name: str, expected: str) -> None:
    assert file_name(name) == expected


def test_the_store_is_never_replaced_by_a_page(command_line: CommandLine) -> None:
    command_line.run("run", "functions:square", "-p", "x=1:3", "--name", "night", "--store", "night.html")
    for arguments in ((), ("--output", "night.html"), ("--output", "night.html-wal")):
        ran = command_line.run("report", "--store", "night.html", *arguments)
        assert ran.returncode == 2, ran.stdout
    assert command_line.run("results", "--store", "night.html").returncode == 0


def test_a_page_replaces_a_page_but_no_other_file_unless_it_is_named(command_line: CommandLine) -> None:
    (command_line.directory / "jobrunner.db").unlink()
    command_line.run("run", "functions:square", "-p", "x=1:3")
    page = command_line.directory / "square.html"
    page.write_text("<html>my own</html>")
    ran = command_line.run("report")
    assert ran.returncode == 2
    assert "is no report of jobrunner's; name a file" in ran.stderr
    assert page.read_text() == "<html>my own</html>"
    assert command_line.run("report", "--output", "square.html").returncode == 0
    assert command_line.run("report").returncode == 0

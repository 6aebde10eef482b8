"""A user's mistake is told in a line, with exit code 2, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from jobrunner import __version__
from jobrunner.cli.app import app
from tests.command_line import FUNCTIONS, CommandLine


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "functions_of_wrong_use.py").write_text(FUNCTIONS)
    (tmp_path / "spec.toml").write_text('[batch]\ntarget = "functions_of_wrong_use.py:square"\n[sweep]\ny = [1]\n')
    (tmp_path / "points.csv").write_text("x,y\n1,2\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


TARGET = "functions_of_wrong_use:square"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("", "Usage"),
        ("statu", "No such command"),
        ("run", "expected SPEC.toml or a target to run, or a store to go on with"),
        ("run nothing", "expected SPEC.toml, module:function or path/to/file.py:function, found 'nothing'"),
        ("run none.toml", "none.toml: can't be read: No such file"),
        ("run spec.toml", "spec.toml:4: y: square() has no such parameter; it has x, offset"),
        ("run spec.toml -p x=1", "a spec file describes all its parameters"),
        ("run no_such_module:f", "no module named 'no_such_module'"),
        ("run functions_of_wrong_use:squar", "has no 'squar'; did you mean 'square'?"),
        (f"run {TARGET}", "x: square() requires this parameter"),
        (f"run {TARGET} -p x", "-p: expected key=values, found 'x'"),
        (f"run {TARGET} -p =1", "expected a parameter's name"),
        (f"run {TARGET} -p x=", "x: expected a value"),
        (f"run {TARGET} -p x=1:0", "x: '1:0': the step 1 leads away from the stop, so the range is empty"),
        (f"run {TARGET} -p x=1:2:0", "the step is 0, so the range never ends"),
        (f"run {TARGET} -p x=nan", "no finite number"),
        (f"run {TARGET} -p x=1 -p x=2", "x: the parameter is given twice"),
        (f"run {TARGET} -p x=1 -p ofset=2", "ofset: square() has no such parameter; it has x, offset; did you mean"),
        (f"run {TARGET} -p x=1,1", "x=1 stands twice"),
        (f"run {TARGET} -p x=1 --zip", "--zip pairs lists"),
        (f"run {TARGET} -p x=1,2 -p offset=1,2,3 --zip", "x has 2, offset has 3"),
        (f"run {TARGET} -p x=1 --workers 0", "--workers"),
        (f"run {TARGET} -p x=1 --workers -1", "--workers"),
        (f"run {TARGET} -p x=1 --time-limit 0", "--time-limit"),
        (f"run {TARGET} -p x=1 --time-limit -1", "--time-limit"),
        (f"run {TARGET} -p x=1 --time-limit nan", "--time-limit"),
        (f"run {TARGET} -p x=1 --retries -1", "--retries"),
        (f"run {TARGET} -p x=1 --threads 0", "--threads"),
        (f"run {TARGET} -p x=1 --seed x", "--seed"),
        (f"run {TARGET} -p x=1 --output out.txt", "ending in .csv or .jsonl"),
        (f"run {TARGET} -p x=1 --memory-limit 0", "the memory must be above 0 bytes"),
        (f"run {TARGET} -p x=1 --memory-limit much", "'much' is no amount of memory"),
        (f"run {TARGET} -p x=1 --memory-limit 900TB", "what this machine has), not '900TB'"),
        (f"run {TARGET} -p x=1 --engine spark", "--engine"),
        (f"run {TARGET} -p x=1 --replicates 0", "--replicates"),
        (f"run {TARGET} -p x=1 --max-failures 0", "--max-failures"),
        (f"run {TARGET} -p x=1 --max-failures 3 --stop-on-error", "exclude each other"),
        (f"run {TARGET} --points points.csv", "points.csv: y: square() has no such parameter"),
        (f"run {TARGET} -p x=1 --name ", "--name: expected a text, found nothing"),
        (f"run {TARGET} --points none.csv", "none.csv: can't be read: No such file"),
        ("run --store none.db -p x=1", "-p: without SPEC.toml or a target, the batch is run as the store has it"),
        (f"run {TARGET} -p x=1 --address x", "--address is for a cluster: name it with --engine"),
        (f"run {TARGET} -p x=1 --upload x.py", "--upload is for a cluster"),
        (f"run {TARGET} -p x=1 --engine dask --address h:1 --upload none.py", "there is no none.py"),
        ("doctor --address x", "--address is of a cluster"),
    ],
)
def test_wrong_use_exits_with_2_and_says_why(arguments: str, reason: str) -> None:
    ran = CliRunner().invoke(app, arguments.split(" ") if arguments else [])
    assert ran.exit_code == 2, ran.output
    assert reason in ran.output
    assert "Traceback" not in ran.output


def test_a_fault_of_jobrunner_itself_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("jobrunner.cli.run.make_plan", broken)
    ran = CliRunner().invoke(app, ["run", TARGET])
    assert ran.exit_code == 3
    assert "Traceback" in ran.output
    assert "RuntimeError: a bug" in ran.output


@pytest.mark.parametrize("command", [[], ["run"], ["bench"], ["doctor"]])
def test_help_has_an_example(command: list[str]) -> None:
    ran = CliRunner().invoke(app, [*command, "--help"])
    assert ran.exit_code == 0
    assert "Example" in ran.output


def test_the_version_is_told() -> None:
    ran = CliRunner().invoke(app, ["--version"])
    assert __version__ in ran.output


def test_wrong_use_has_its_exit_code_in_a_process_too(command_line: CommandLine) -> None:
    ran = command_line.run("run", "functions:squar")
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr == "jobrunner: target: 'functions' has no 'squar'; did you mean 'square'?\n"

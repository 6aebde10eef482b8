"""`jobrunner run` as a user meets it: what it prints, what it leaves, and its exit codes."""

from __future__ import annotations

import csv
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import CommandLine


def test_a_batch_that_is_all_done_exits_with_0_and_prints_a_plain_table(command_line: CommandLine) -> None:
    ran = command_line.run("run", "functions:square", "-p", "x=1:3", "-p", "offset=1")
    assert ran.returncode == 0, ran.stderr
    assert [line.split() for line in ran.stdout.splitlines()] == [
        ["square:", "offset=1"],
        ["x", "square"],
        ["1", "2"],
        ["2", "5"],
        ["3", "10"],
    ]
    assert ran.stderr.startswith("square: 3 done, 0 failed in ")


def test_a_batch_with_failures_exits_with_1_and_tells_each_in_a_line(command_line: CommandLine) -> None:
    ran = command_line.run("run", "functions.py:picky", "-p", "x=1:3", "--output", "out.jsonl")
    assert ran.returncode == 1
    assert "failed: x=2: ValueError: two is not welcome\n" in ran.stderr
    assert "2 done, 1 failed" in ran.stderr
    assert "Traceback" not in ran.stderr
    lines = [json.loads(line) for line in (command_line.directory / "out.jsonl").read_text().splitlines()]
    assert {line["parameters"]["x"]: line["status"] for line in lines} == {1: "done", 2: "failed", 3: "done"}


def test_what_can_be_done_about_a_changed_batch_is_named_in_options_of_the_command_line(
    command_line: CommandLine,
) -> None:
    command_line.run("run", "functions:draws", "-p", "x=1:2", "--seed", "5")
    ran = command_line.run("run", "functions:draws", "-p", "x=1:2", "--seed", "6")
    assert ran.returncode == 2
    assert "the seed is 6, and was 5. --accept-changes keeps" in ran.stderr
    assert all(option in ran.stderr for option in ("--fresh begins anew", "--name makes another batch"))
    assert "=True" not in ran.stderr
    ran = command_line.run("run", "--fresh")
    assert ran.returncode == 2
    assert (
        "--fresh: what begins anew needs its description: name the spec, or the function and its points" in ran.stderr
    )


def test_a_keyboard_interrupt_out_of_a_job_is_a_failure_and_no_ctrl_c(command_line: CommandLine) -> None:
    ran = command_line.run("run", "functions:interrupted", "-p", "x=1")
    assert ran.returncode == 1
    assert "failed: x=1: KeyboardInterrupt" in ran.stderr


def test_a_worker_that_dies_fails_its_own_point_alone(command_line: CommandLine) -> None:
    ran = command_line.run("run", "functions:dies", "-p", "x=1:6", "--json")
    assert ran.returncode == 1
    document = json.loads(ran.stdout)
    assert [result["status"] for result in document["results"]] == ["done", "failed", *["done"] * 4]
    assert "WorkerDiedError" in document["results"][1]["error"]


def test_a_job_past_the_time_limit_is_ended(command_line: CommandLine) -> None:
    ran = command_line.run("run", "functions:sleeps", "-p", "x=1", "--time-limit", "0.2")
    assert ran.returncode == 1
    assert "failed: x=1: TimeLimitExceeded" in ran.stderr


def test_json_is_one_document_in_the_order_of_the_points(command_line: CommandLine) -> None:
    ran = command_line.run("run", "functions:draws", "-p", "x=1:20", "--seed", "5", "--json", "--name", "mine")
    document = json.loads(ran.stdout)
    assert (document["name"], document["target"], document["seed"]) == ("mine", "functions:draws", 5)
    assert (document["total"], document["done"], document["failed"], document["cancelled"]) == (20, 20, 0, 0)
    assert [result["parameters"]["x"] for result in document["results"]] == list(range(1, 21))


def test_seeds_are_the_same_for_any_number_of_workers(command_line: CommandLine) -> None:
    def results(workers: str) -> object:
        ran = command_line.run(
            "run", "functions:draws", "-p", "x=1:9", "--seed", "5", "--json", "--workers", workers, "--fresh"
        )
        return [result["result"] for result in json.loads(ran.stdout)["results"]]

    assert results("1") == results("2")


def test_a_drawn_seed_is_shown_and_a_useless_one_noted(command_line: CommandLine) -> None:
    drawn = command_line.run("run", "functions:draws", "-p", "x=1").stderr
    assert ", drawn)" in drawn
    seed = drawn.partition("(seed ")[2].partition(",")[0]
    again = command_line.run("run", "functions:draws", "-p", "x=1", "--seed", seed, "--json")
    assert json.loads(again.stdout)["seed"] == int(seed)
    assert "takes no seed" in command_line.run("run", "functions:square", "-p", "x=1", "--seed", "5").stderr


def test_a_spec_runs_relative_to_its_file(command_line: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "functions.py").rename(tmp_path / "sub" / "functions.py")
    spec = '[batch]\ntarget = "functions.py:square"\n[sweep]\nx = "1:3"\n[[zip]]\noffset = [1, 2]\n'
    (tmp_path / "sub" / "squares.toml").write_text(spec)
    ran = command_line.run("run", "sub/squares.toml", "--output", "out.csv", "--workers", "1")
    assert ran.returncode == 0, ran.stderr
    with (tmp_path / "out.csv").open(newline="") as file:
        found = sorted((row["x"], row["offset"], row["square"]) for row in csv.DictReader(file))
    assert found == sorted((str(x), str(o), str(x * x + o)) for x in (1, 2, 3) for o in (1, 2))


def test_the_installed_script_finds_modules_of_the_working_directory_too(tmp_path: Path) -> None:
    """It has its own directory first in its path, and the working directory nowhere."""
    (tmp_path / "specs").mkdir()
    (tmp_path / "my_functions.py").write_text("def square(x): return x * x")
    (tmp_path / "specs" / "squares.toml").write_text('[batch]\ntarget = "my_functions:square"\n[sweep]\nx = [3]\n')
    code = "import sys; sys.path.remove(''); from jobrunner.cli import main; main()"
    root = Path(__file__).resolve().parents[2]
    for what in (["specs/squares.toml"], ["my_functions:square", "-p", "x=3"]):
        ran = subprocess.run(
            [sys.executable, "-c", code, "run", *what],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.split() == ["x", "result", "3", "9"]


def test_zip_pairs_the_lists(command_line: CommandLine) -> None:
    ran = command_line.run("run", "functions:square", "-p", "x=1,2", "-p", "offset=10,20", "--zip", "--json")
    assert [result["result"]["square"] for result in json.loads(ran.stdout)["results"]] == [11, 24]


def test_a_long_table_is_elided_with_a_note(command_line: CommandLine) -> None:
    ran = command_line.run("run", "functions:square", "-p", "x=1:1000")
    lines = ran.stdout.splitlines()
    assert len(lines) == 1 + 20 + 1 + 20 + 1
    assert lines[20].split() == ["20", "400"]
    assert lines[22].split() == ["981", str(981**2)]
    assert lines[-1] == "960 results in the middle are not shown; --output keeps all"


def test_a_users_queue_py_in_the_working_directory_does_no_harm(command_line: CommandLine, tmp_path: Path) -> None:
    for name in ("queue", "socket", "selectors"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the wrong module')")
    ran = command_line.run("run", "functions:square", "-p", "x=1:3")
    assert ran.returncode == 0, ran.stderr


def test_a_reader_that_has_enough_changes_nothing(command_line: CommandLine) -> None:
    process = command_line.start("run", "functions:square", "-p", "x=1:3")
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, stderr = process.communicate(timeout=100)
    assert process.returncode == 0, stderr
    assert "3 done" in stderr
    assert "Broken" not in stderr


def test_progress_is_shown_on_a_terminal_alone(command_line: CommandLine) -> None:
    ours, theirs = pty.openpty()
    try:
        process = command_line.start("run", "functions:square", "-p", "x=1:3", stderr=theirs)
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 65536):
                shown += chunk
        except OSError:  # the other end is closed
            pass
        assert process.wait(timeout=100) == 0
    finally:
        os.close(ours)
    assert b"\x1b[" in shown
    assert b"0 failed" in shown
    assert "\x1b" not in command_line.run("run", "functions:square", "-p", "x=1:3").stderr


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_an_unwritable_output_exits_with_3_before_anything_runs(command_line: CommandLine, name: str) -> None:
    ran = command_line.run("run", "functions:sleeps", "-p", "x=1", "--output", f"none/{name}")
    assert ran.returncode == 3
    assert f"none/{name}: the output file can't be written: No such file or directory" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_disk_that_is_full_ends_the_run_with_3_and_prints_what_there_is(
    command_line: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "out.jsonl").symlink_to("/dev/full")
    ran = command_line.run("run", "functions:square", "-p", "x=1:3", "--output", "out.jsonl")
    assert ran.returncode == 3
    assert "No space left on device" in ran.stderr
    assert "square" in ran.stdout


def test_import_of_the_command_line_is_light() -> None:
    code = "import sys, jobrunner.cli; print(sorted({'click', 'rich', 'loky', 'numpy', 'psutil'} & set(sys.modules)))"
    root = Path(__file__).resolve().parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True, env=os.environ.copy()
    )
    assert ran.stdout == "[]\n"

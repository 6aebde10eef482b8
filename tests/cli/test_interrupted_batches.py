"""Ctrl-C and SIGTERM amid a batch: the state is saved, nothing of it runs on, and a resume completes what was left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from jobrunner.batch.store import Store
from tests.command_line import ROOT, CommandLine

FUNCTIONS = """
import os, time

def waits(x):
    \"\"\"Odd points end; even ones tell that they run, and stay until there is a file `go`.\"\"\"
    with open("ran.txt", "a") as file:
        file.write(f"{x}\\n")
    if x % 2 == 0 and not os.path.exists("go"):
        with open("fifo", "w") as file:
            file.write(f"{os.getpid()}\\n")
        time.sleep(600)
    return x

def stubborn(x):
    \"\"\"Ignores every signal that can be.\"\"\"
    import signal
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    return waits(x)
"""

PROGRAM = """
from jobrunner import Batch, LocalExecutor, sweep

if __name__ == "__main__":
    with LocalExecutor(max_workers=2) as executor:
        summary = Batch("work:waits", sweep(x=[1, 2, 4, 5, 6]), name="program").run(executor)
    print(summary.done, summary.skipped)
"""

POINTS = (1, 2, 4, 5, 6)


@pytest.fixture
def directory(command_line: CommandLine) -> Path:
    (command_line.directory / "work.py").write_text(FUNCTIONS)
    (command_line.directory / "program.py").write_text(PROGRAM)
    return command_line.directory


def is_gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def start(command_line: CommandLine, function: str = "waits") -> subprocess.Popen[str]:
    return command_line.start("run", f"work.py:{function}", "-p", "x=1,2,4,5,6", "--workers", "2")


def done(directory: Path) -> set[int]:
    with Store(directory / "jobrunner.db") as store:
        return {point.parameters["x"] for point in store.points(store.batch(), "done")}


def wait_until_done(directory: Path, points: set[int], process: subprocess.Popen[str]) -> None:
    """Until another process has recorded that these are done."""
    while not points <= done(directory):
        assert process.poll() is None
        time.sleep(0.01)  # the store tells nobody


def assert_ran(directory: Path, kept: set[int]) -> None:
    """After a resume each point is done, and none that was done before has run again."""
    assert done(directory) == set(POINTS)
    lines = [int(line) for line in (directory / "ran.txt").read_text().split()]
    assert set(lines) == set(POINTS)
    assert all(lines.count(x) == 1 for x in kept)


@pytest.mark.parametrize("function", ["waits", "stubborn"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_signal_ends_what_runs_saves_the_state_and_a_resume_completes(
    command_line: CommandLine,
    directory: Path,
    meeting: Callable[[int], list[int]],
    number: signal.Signals,
    code: int,
    function: str,
) -> None:
    process = start(command_line, function)
    pids = meeting(2)
    wait_until_done(directory, {1}, process)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in stderr
    assert "1 done, 0 failed, 4 not run" in stderr
    assert all(map(is_gone, pids))
    with Store(directory / "jobrunner.db") as store:
        batch = store.batch()
        counts = store.counts(batch)
        assert (counts.done, counts.pending, counts.leased) == (1, 4, 0)
        assert all(runner.ended_at is not None for runner in store.runners(batch))
    (directory / "go").touch()
    ran = command_line.run("run", f"work.py:{function}", "-p", "x=1,2,4,5,6")
    assert ran.returncode == 0, ran.stderr
    assert "4 done, 0 failed, 1 done before" in ran.stderr
    assert_ran(directory, {1})


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_two_signals_end_all_at_once_and_a_resume_completes(
    command_line: CommandLine,
    directory: Path,
    meeting: Callable[[int], list[int]],
    number: signal.Signals,
    code: int,
) -> None:
    process = start(command_line)
    pids = meeting(2)
    wait_until_done(directory, {1}, process)
    process.send_signal(number)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in stderr
    # Its workers are ended by its guardian, if it had no time for that itself.
    psutil.wait_procs([psutil.Process(pid) for pid in pids if not is_gone(pid)], timeout=60)
    assert all(map(is_gone, pids))
    kept = done(directory)
    assert 1 in kept
    (directory / "go").touch()
    ran = command_line.run("run")
    assert ran.returncode == 0, ran.stderr
    assert f"{5 - len(kept)} done, 0 failed, {len(kept)} done before" in ran.stderr
    assert_ran(directory, kept)


def test_ctrl_c_in_a_program_saves_the_state_and_the_program_run_again_completes(
    command_line: CommandLine, directory: Path, meeting: Callable[[int], list[int]]
) -> None:
    def begin() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "program.py"],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        command_line.started.append(process)
        return process

    process = begin()
    pids = meeting(2)
    wait_until_done(directory, {1}, process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert stderr.splitlines()[-1] == "KeyboardInterrupt"
    assert all(map(is_gone, pids))
    with Store(directory / "jobrunner.db") as store:
        counts = store.counts(store.batch())
        assert (counts.done, counts.pending, counts.leased) == (1, 4, 0)
    (directory / "go").touch()
    again = begin()
    stdout, stderr = again.communicate(timeout=60)
    assert again.returncode == 0, stderr
    assert stdout == "4 1\n"
    assert_ran(directory, {1})


def test_a_batch_stopped_by_a_signal_prints_and_writes_what_is_done(
    command_line: CommandLine, directory: Path, meeting: Callable[[int], list[int]]
) -> None:
    arguments = ("run", "work.py:waits", "-p", "x=1,2,4", "--workers", "2", "--output", "out.csv")
    process = command_line.start(*arguments)
    meeting(2)
    wait_until_done(directory, {1}, process)
    process.send_signal(signal.SIGTERM)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert stdout.split() == ["x", "result", "1", "1"]
    assert len((directory / "out.csv").read_text().splitlines()) == 2

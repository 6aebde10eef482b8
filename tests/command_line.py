"""A command line in a process of its own, in a directory of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

FUNCTIONS = '''\
"""What the command line's tests run."""
import os, time


def square(x, offset=0):
    return {"square": x * x + offset}


def picky(x):
    if x == 2:
        raise ValueError("two is\\nnot welcome")
    return x


def interrupted(x):
    raise KeyboardInterrupt


def dies(x):
    if x == 2:
        os._exit(7)
    return x


def draws(x, seed):
    return {"seed": seed}


def sleeps(x):
    time.sleep(600)


def meets(x, fifo):
    """Tell that it runs, by its pid; the first ends, the others stay."""
    with open(fifo, "w") as file:
        file.write(f"{os.getpid()}\\n")
    if x:
        time.sleep(600)
    return x
'''


class CommandLine:
    """Starts `python -m jobrunner` in a directory that has the module `functions`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started: list[subprocess.Popen[str]] = []

    def start(
        self, *arguments: str, stdout: int | IO[Any] = subprocess.PIPE, stderr: int | IO[Any] = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobrunner", *arguments],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
            stdout=stdout,
            stderr=stderr,
            text=True,
            # A test run in the background has SIGINT ignored, and its children would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.started.append(process)
        return process

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        stdout, stderr = process.communicate(timeout=100)
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


@pytest.fixture
def command_line(tmp_path: Path) -> Iterator[CommandLine]:
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    made = CommandLine(tmp_path)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def meeting(tmp_path: Path) -> Iterator[Callable[[int], list[int]]]:
    """Wait until so many jobs of `functions.meets` run; return their process ids."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # Opened for both, it stays open between two writers, and opening does not wait for one.
    with open(os.open(fifo, os.O_RDWR)) as file:

        def wait_for(count: int) -> list[int]:
            return [int(file.readline()) for _ in range(count)]

        yield wait_for

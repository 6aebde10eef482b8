"""What the tests of survival share: functions that write down each call, moments to kill at, and stores read raw."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.command_line import CommandLine

#: The module that the batches run.  Each call is a line in the file `calls`, written by one append: the label of the
#: run (an environment variable), x, and the replicate's seed.
MODULE = '''\
"""What the tests of survival run."""
import os, random, time


def note(*words):
    file = os.open(os.environ["SURVIVAL_CALLS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, (" ".join(map(str, (os.environ.get("SURVIVAL_RUN", "-"), *words))) + "\\n").encode())
    os.close(file)


def walk(x, seed, steps=50):
    """A random walk, of 1 to 5 ms."""
    note(x, seed)
    time.sleep((1 + x % 5) / 1000)
    numbers = random.Random(seed)
    place = 0.0
    for _ in range(steps):
        place += numbers.gauss(0.0, 1.0)
    return {"place": place, "last": numbers.random()}


def cloud(x, rng):
    """A mean of NumPy's numbers, and an array of them."""
    note(x, "-")
    time.sleep((1 + x % 5) / 1000)
    numbers = rng.normal(loc=x, size=100)
    return {"mean": float(numbers.mean()), "first": numbers[:4]}


def held(x, seed):
    """Say that it runs, through a pipe, and go on when its gate, another pipe, is opened and closed."""
    note(x, seed)
    with open("running", "w") as running:
        running.write(f"{x}\\n")
    with open(f"gate{x}") as gate:
        gate.read()
    return seed
'''

#: What SQLite keeps beside a store that outlives its process; the log's index is memory.
KEPT = ("", "-wal", "-journal")


class Killing:
    """Runs a batch from a command line, one process after another, and kills some of them.

    Args:
        directory: has the module and the file of calls.
        command_line: starts the processes.
        setenv: sets the environment of what is started next.
    """

    def __init__(self, command_line: CommandLine, setenv: Callable[[str, str], None]) -> None:
        self.directory = command_line.directory
        self.store = self.directory / "jobrunner.db"
        self.calls = self.directory / "calls"
        self._command_line = command_line
        self._setenv = setenv
        (self.directory / "survive.py").write_text(MODULE)
        setenv("SURVIVAL_CALLS", str(self.calls))

    def start(self, label: object, *arguments: str) -> subprocess.Popen[str]:
        """Start ``jobrunner run`` with two workers; its calls have the label."""
        self._setenv("SURVIVAL_RUN", str(label))
        return self._command_line.start(
            "run", *arguments, "--store", str(self.store), "--workers", "2", "--progress", "none"
        )

    def run_to_the_end(self, label: object, *arguments: str) -> None:
        """Run it undisturbed."""
        process = self.start(label, *arguments)
        _, stderr = process.communicate(timeout=100)
        assert process.returncode == 0, stderr

    def pass_changes(self, process: subprocess.Popen[str], changes: int) -> bool:
        """Wait until its files have been seen to change so often; False: it has ended before."""
        before = self._state()
        while changes > 0:
            if process.poll() is not None:
                return False
            state = self._state()
            changes -= state != before
            before = state
        return True

    def kill_at(self, process: subprocess.Popen[str], changes: int) -> bool:
        """Kill it when its files have been seen to change so often; False: it had ended before."""
        if self.pass_changes(process, changes):
            process.send_signal(signal.SIGKILL)
        stderr = process.communicate()[1]
        assert process.returncode in (0, -signal.SIGKILL), stderr
        return process.returncode == -signal.SIGKILL

    def _state(self) -> tuple[tuple[int, int] | None, ...]:
        found: list[tuple[int, int] | None] = []
        for path in [self.calls, *(Path(f"{self.store}{ending}") for ending in KEPT)]:
            try:
                status = os.stat(path)
            except FileNotFoundError:
                found.append(None)
            else:
                found.append((status.st_size, status.st_mtime_ns))
        return tuple(found)

    def called(self) -> list[list[str]]:
        """Each call's words, in order."""
        return [line.split() for line in self.calls.read_text().splitlines()] if self.calls.exists() else []


def moments(seed: int, most: int) -> Iterator[int]:
    """After how many changes to kill: often few, so that the registration and the first commits are met."""
    numbers = random.Random(seed)
    while True:
        yield min(1 + int(numbers.expovariate(3 / most)), most)


def copy_store(store: Path, directory: Path) -> Path:
    """The store as its process left it, or would if it ended now, without touching it: reading it would mend it."""
    directory.mkdir(exist_ok=True)
    for ending in KEPT:
        source, target = Path(f"{store}{ending}"), directory / f"{store.name}{ending}"
        target.unlink(missing_ok=True)
        if source.exists():
            shutil.copyfile(source, target)
            target.chmod(0o600)
    Path(f"{directory / store.name}-shm").unlink(missing_ok=True)
    return directory / store.name


def query(store: Path, text: str, *values: Any) -> list[tuple[Any, ...]]:
    """Rows of a store, read with nothing of jobrunner's."""
    with closing(sqlite3.connect(store, timeout=30.0)) as connection:
        return connection.execute(text, values).fetchall()


def done_points(store: Path) -> set[int]:
    """The values of x of the points that are DONE, after SQLite's own check of the file."""
    if not store.exists():
        return set()
    assert query(store, "PRAGMA integrity_check") == [("ok",)]
    if not query(store, "SELECT 1 FROM sqlite_master WHERE name = 'point'"):
        return set()
    found = query(store, "SELECT json_extract(parameters, '$.x') FROM point WHERE status = 'done'")
    return {x for (x,) in found}


def stored_bytes(store: Path) -> list[tuple[Any, ...]]:
    """Every point in order: parameters, replicate, seed, and its result bit for bit."""
    return query(
        store,
        """SELECT p.place, p.parameters, p.replicate, p.seed, p.status, o.format, o.result
        FROM point p LEFT JOIN outcome o ON o.id = p.outcome WHERE p.place IS NOT NULL ORDER BY p.place""",
    )


def assert_each_done_once(store: Path, total: int) -> None:
    """Every point is DONE, by exactly one outcome, and nothing else is recorded as done."""
    assert query(store, "PRAGMA integrity_check") == [("ok",)]
    assert query(store, "SELECT status, count(*) FROM point GROUP BY status") == [("done", total)]
    assert query(store, "SELECT count(*), count(DISTINCT point) FROM outcome WHERE status = 'done'") == [(total, total)]
    assert query(store, "SELECT count(*) FROM point WHERE outcome IS NULL") == [(0,)]


def assert_reruns_were_allowed(calls: list[list[str]], done_before: Mapping[str, set[int]]) -> None:
    """No run has called a point that was DONE when it began."""
    for label, group in itertools.groupby(sorted(calls), key=lambda words: words[0]):
        again = {int(words[1]) for words in group} & done_before[label]
        assert not again, f"run {label} has called {sorted(again)} again"

"""What is on the disk at any moment is a store: also with the end of its log lost, and the log's index always."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from jobrunner.batch.store import Store
from tests.batch.survival_batch import (
    Killing,
    assert_each_done_once,
    copy_store,
    done_points,
    query,
    stored_bytes,
)
from tests.command_line import CommandLine, command_line

__all__ = ["command_line"]

POINTS = 300
BATCH = ["survive.py:walk", "-p", f"x=0:{POINTS - 1}:1", "--seed", "3"]


@pytest.fixture
def killing(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Killing:
    return Killing(command_line, monkeypatch.setenv)


def stop(process: subprocess.Popen[str]) -> None:
    """Stop every thread of it, and wait until it has stopped."""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def copies_of_a_run(killing: Killing, numbers: random.Random, count: int) -> list[Path]:
    """Copies of the store at random moments of one run, and after each wish of the disk to lose the end of the log.

    Less than 1000 pages are written, and the run is not about to end, so that nothing of the log has been brought into
    the file: any beginning of it is what a power cut may leave.
    """
    copies: list[Path] = []
    process = killing.start("copied", *BATCH)
    while len(copies) < count:
        calls = len(killing.called()) + numbers.randrange(3, 30)
        while len(killing.called()) < calls:
            assert process.poll() is None
        assert killing.pass_changes(process, numbers.randrange(1, 4))
        stop(process)
        assert len(killing.called()) < POINTS
        copies.append(copy_store(killing.store, killing.directory / f"copy{len(copies)}"))
        process.send_signal(signal.SIGCONT)
    process.kill()
    process.communicate()
    return copies


def test_a_power_cut_at_a_random_moment_leaves_a_store_that_goes_on(killing: Killing) -> None:
    numbers = random.Random(17)
    copies = copies_of_a_run(killing, numbers, count=5)
    before: set[int] = set()
    for copy in copies:
        log = Path(f"{copy}-wal")
        assert log.stat().st_size < 1000 * 4096
        whole = done_points(copy_store(copy, copy.parent / "whole"))
        assert whole >= before  # what was DONE is never taken back
        before = whole
        lengths = [0, 1, 31, 32, log.stat().st_size - 1, *(numbers.randrange(log.stat().st_size) for _ in range(20))]
        seen: set[int] = set()
        for length in sorted(lengths):
            cut = copy_store(copy, copy.parent / "cut")
            os.truncate(f"{cut}-wal", length)
            with Store(cut) as opened:
                assert opened.counts(opened.batch()).total == POINTS
            now = done_points(cut)
            assert seen <= now <= whole  # more of the log is more commits, each whole
            seen = now
            assert query(cut, "SELECT count(*) FROM outcome WHERE status = 'done'") == [(len(now),)]
    # The last of them, cut, goes on: and ends as a run that was left alone.
    killing.run_to_the_end("original", *BATCH)
    expected = stored_bytes(killing.store)
    for copy in (cut, copies[0]):
        killing.store = copy
        killing.run_to_the_end("resumed", *BATCH)
        assert_each_done_once(copy, POINTS)
        assert stored_bytes(copy) == expected

"""A batch whose process is killed at random moments, over and over, ends as one that was left alone."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.batch.survival_batch import (
    Killing,
    assert_each_done_once,
    assert_reruns_were_allowed,
    copy_store,
    done_points,
    moments,
    stored_bytes,
)
from tests.command_line import CommandLine, command_line

__all__ = ["command_line"]


@pytest.fixture
def killing(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Killing:
    return Killing(command_line, monkeypatch.setenv)


def survive(killing: Killing, points: int, kills: int, most_changes: int) -> None:
    batch = ["survive.py:walk", "-p", f"x=0:{points - 1}:1", "--seed", "11"]
    done_before: dict[str, set[int]] = {}
    done: set[int] = set()
    killed = 0
    changes = moments(seed=points, most=most_changes)
    for number in itertools.count():
        label = f"{number:03}"
        done_before[label] = done
        process = killing.start(label, *batch)
        if killed == kills:
            _, stderr = process.communicate(timeout=100)
            assert process.returncode == 0, stderr
            break
        assert number < 3 * kills, "the processes end before they can be killed"
        killed += killing.kill_at(process, next(changes))
        # A copy is read: reading the store itself would mend it before the next run has to.
        now = done_points(copy_store(killing.store, killing.directory / "copy"))
        assert now >= done
        done = now
    assert_each_done_once(killing.store, points)
    assert_reruns_were_allowed(killing.called(), done_before)
    left_alone = undisturbed(killing, batch)
    assert stored_bytes(killing.store) == stored_bytes(left_alone)


def undisturbed(killing: Killing, batch: list[str]) -> Path:
    survived, killing.store = killing.store, killing.directory / "undisturbed.db"
    try:
        killing.run_to_the_end("undisturbed", *batch)
        return killing.store
    finally:
        killing.store = survived


def test_four_kills_change_no_result_and_repeat_no_point_that_was_done(killing: Killing) -> None:
    survive(killing, points=300, kills=4, most_changes=150)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_fifty_kills_change_no_result_and_repeat_no_point_that_was_done(killing: Killing) -> None:
    survive(killing, points=2000, kills=50, most_changes=120)

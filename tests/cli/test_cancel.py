"""`jobrunner cancel`: a batch, or some of its points, from another process than the one that runs it."""

from __future__ import annotations

import os

import pytest

from jobrunner.batch.store import Store
from tests.batch.stores import StoreBuilder, gone
from tests.cli.store_commands import invoke, make_unsafe, store

__all__ = ["store"]


@pytest.fixture
def running(store: StoreBuilder) -> StoreBuilder:
    """Run by this process, but for point 4, whose process is no more."""
    batch = store.batch(total=6)
    runner = store.runner(batch)
    killed = store.runner(batch, gone())
    store.done(batch, runner, 0, {"x": 0}, 0)
    store.failed(batch, runner, 1, {"x": 1}, "E: no")
    store.point(batch, 2, {"x": 2}, "leased", runner=runner)
    store.point(batch, 3, {"x": 3})
    store.point(batch, 4, {"x": 4}, "leased", runner=killed)
    store.point(batch, 5, {"x": 5}, "cancelled")
    return store


def statuses(store: StoreBuilder) -> list[str]:
    return [status for (status,) in store.connection.execute("SELECT status FROM point ORDER BY place")]


def stop_requested(store: StoreBuilder) -> list[int]:
    return [wanted for (wanted,) in store.connection.execute("SELECT stop_requested FROM runner ORDER BY id")]


def test_a_whole_batch_is_cancelled_and_its_processes_told(running: StoreBuilder) -> None:
    ran = invoke("cancel")
    assert ran.exit_code == 0
    assert "3 points cancelled" in ran.stdout
    assert "final already: 1 done, 1 failed" in ran.stdout
    assert f"pid {os.getpid()}" in ran.stdout
    assert statuses(running) == ["done", "failed", "cancelled", "cancelled", "cancelled", "cancelled"]
    assert stop_requested(running) == [1, 0]


@pytest.mark.parametrize(
    ("places", "told"), [([2], True), ([3], False), ([4], False), ([2, 3, 3], True)], ids=lambda value: str(value)
)
def test_points_are_cancelled_and_only_who_runs_them_is_told(
    running: StoreBuilder, places: list[int], told: bool
) -> None:
    before = statuses(running)
    ran = invoke("cancel " + " ".join(f"--point {place}" for place in places))
    assert ran.exit_code == 0
    count = len(set(places))
    assert f"{count} point{'s' if count > 1 else ''} cancelled" in ran.stdout
    assert (f"pid {os.getpid()}" in ran.stdout) is told
    before[4] = "pending"  # given back, its process being no more
    assert statuses(running) == ["cancelled" if place in places else status for place, status in enumerate(before)]
    assert stop_requested(running) == [0, 0]


def test_what_is_final_is_told_as_such(running: StoreBuilder) -> None:
    before = statuses(running)
    ran = invoke("cancel --point 0 --point 1 --point 5")
    assert ran.exit_code == 0
    assert ran.stdout.splitlines() == [
        "batch 'squares': 0 points cancelled",
        "point 0 is done already",
        "point 1 is failed already",
        "point 5 is cancelled already",
    ]
    assert [statuses(running)[place] for place in (0, 1, 5)] == [before[place] for place in (0, 1, 5)]


def test_a_point_that_is_not_there_leaves_the_others_alone(running: StoreBuilder) -> None:
    before = statuses(running)
    ran = invoke("cancel --point 2 --point 77")
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "has no point 77" in ran.stderr
    assert statuses(running) == before


def test_a_store_that_another_user_could_have_written_exits_with_3(running: StoreBuilder) -> None:
    before = statuses(running)
    make_unsafe(running.path)
    ran = invoke("cancel")
    assert (ran.exit_code, ran.stdout) == (3, "")
    assert "is not safe to use" in ran.stderr
    assert statuses(running) == before


def test_a_store_that_is_read_only_exits_with_3(running: StoreBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_may_be_written(path: object, mode: int, **other: object) -> bool:
        return not mode & os.W_OK

    monkeypatch.setattr(os, "access", nothing_may_be_written)  # root may write everything
    ran = invoke("cancel")
    assert (ran.exit_code, ran.stdout) == (3, "")
    assert "is read-only" in ran.stderr


def test_a_store_that_is_locked_exits_with_3(running: StoreBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobrunner.storage.connection._LOCKED_S", 0.0)
    running.connection.execute("BEGIN IMMEDIATE")
    ran = invoke("cancel")
    running.connection.execute("ROLLBACK")
    assert (ran.exit_code, ran.stdout) == (3, "")
    assert "another process has kept it locked" in ran.stderr
    with Store(running.path) as opened:
        assert opened.counts(opened.batch()).cancelled == 1

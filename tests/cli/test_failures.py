"""`jobrunner failures`: each failed point with its cause, and the causes counted where there are many."""

from __future__ import annotations

import json

import pytest

from tests.batch.stores import StoreBuilder
from tests.cli.store_commands import invoke, store

__all__ = ["store"]


@pytest.fixture
def failed(store: StoreBuilder) -> StoreBuilder:
    batch = store.batch(parameters=["x", "mode"], varying='["x"]', total=4)
    runner = store.runner(batch)
    store.failed(batch, runner, 0, {"x": 1, "mode": "fast"}, "ValueError: one is not welcome", report={"stack": None})
    store.done(batch, runner, 1, {"x": 2, "mode": "fast"}, 5)
    store.failed(
        batch,
        runner,
        2,
        {"x": 3, "mode": "fast"},
        "WorkerDiedError: the worker died",
        report={"exit_signal": 9, "exit_code": None, "stack": 'File "sim.py", line 3\n  loop()'},
        run_s=None,
    )
    store.failed(batch, runner, 3, {"x": 4, "mode": "fast"}, "WorkerDiedError: it died", report={"exit_code": 7})
    return store


def test_each_failed_point_is_told_with_cause_place_and_time(failed: StoreBuilder) -> None:
    ran = invoke("failures")
    assert ran.exit_code == 0
    lines = ran.stdout.splitlines()
    assert lines[0] == "point 0: x=1"
    assert lines[1] == "  ValueError: one is not welcome"
    assert lines[2].startswith("  1 attempt, somewhere pid 4321, 2023-11-1")
    assert lines[2].endswith(", after 2 s")
    assert lines[3] == "point 2: x=3"
    assert "signal SIGKILL" in lines[5]
    assert lines[6] == "point 3: x=4"
    assert "exit code 7" in lines[8]
    assert len(lines) == 9


def test_the_stack_is_shown_where_it_is_asked_for(failed: StoreBuilder) -> None:
    assert "loop()" not in invoke("failures").stdout
    assert '    File "sim.py", line 3\n      loop()\n' in invoke("failures --full").stdout


def test_points_may_be_chosen_and_others_are_told_not_to_have_failed(failed: StoreBuilder) -> None:
    ran = invoke("failures --point 1 --point 3 --point 3")
    assert ran.exit_code == 0
    assert [line for line in ran.stdout.splitlines() if line.startswith("point")] == ["point 3: x=4"]
    assert "point 1 has not failed: it is done" in ran.stderr


def test_json_is_an_array_with_the_report_if_asked_for(failed: StoreBuilder) -> None:
    found = json.loads(invoke("failures --json").stdout)
    assert [item["point"] for item in found] == [0, 2, 3]
    assert found[1]["exit_signal"] == 9
    assert found[1]["parameters"] == {"x": 3, "mode": "fast"}
    assert (found[1]["host"], found[1]["pid"], found[1]["attempts"]) == ("somewhere", 4321, 1)
    assert "report" not in found[1]
    assert "loop()" in json.loads(invoke("failures --json --full").stdout)[1]["report"]["stack"]


def test_of_many_failures_the_causes_are_counted_first(store: StoreBuilder) -> None:
    batch = store.batch(total=40)
    runner = store.runner(batch)
    for place in range(40):
        error = f"ValueError: {place} is '{place}', not 1e-{place}" if place % 4 else "MemoryLimitExceeded: 2GiB"
        store.failed(batch, runner, place, {"x": place}, error)
    lines = invoke("failures").stdout.splitlines()
    assert lines[0].split(maxsplit=2) == ["30", "×", "ValueError: * is *, not *"]
    assert lines[1].split(maxsplit=2) == ["10", "×", "MemoryLimitExceeded: *GiB"]
    assert lines[2] == ""
    assert sum(line.startswith("point ") for line in lines) == 40
    assert len(json.loads(invoke("failures --json").stdout)) == 40


def test_no_failures_are_said_so(store: StoreBuilder) -> None:
    batch = store.batch(total=1)
    store.done(batch, store.runner(batch), 0, {"x": 1}, 1)
    ran = invoke("failures")
    assert (ran.exit_code, ran.stdout) == (0, "")
    assert "no point of batch 'squares' has failed" in ran.stderr
    assert json.loads(invoke("failures --json").stdout) == []

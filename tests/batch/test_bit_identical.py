"""Results are the same, bit for bit, for any number of workers, any order, after kills, and when shared."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jobrunner import Batch, InlineExecutor, LocalExecutor, sweep
from jobrunner.batch.seeds import point_seed
from jobrunner.batch.store import Store
from jobrunner.batch.values import canonical_json
from tests.batch.survival_batch import MODULE, Killing, assert_each_done_once
from tests.command_line import CommandLine, command_line

__all__ = ["command_line"]

POINTS, REPLICATES, SEED = 40, 3, 2**40 + 1

FUNCTIONS = ["walk", "cloud"]

Results = Mapping[tuple[str, int], tuple[int | None, object]]


@pytest.fixture(autouse=True, params=FUNCTIONS)
def function(request: pytest.FixtureRequest) -> str:
    if request.param == "cloud":
        pytest.importorskip("numpy")
    return str(request.param)


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    (tmp_path / "survive.py").write_text(MODULE)
    monkeypatch.setenv("SURVIVAL_CALLS", str(tmp_path / "calls"))
    return {"SURVIVAL_CALLS": str(tmp_path / "calls")}


def bits(value: Any) -> object:
    """A value as what is equal only if every bit is; a float's `==` takes -0.0 for 0.0."""
    if isinstance(value, dict):
        return {name: bits(each) for name, each in value.items()}
    if isinstance(value, float):
        return value.hex()
    return (value.dtype.str, value.shape, value.tobytes()) if hasattr(value, "tobytes") else value


def stored(store: Path) -> Results:
    assert_each_done_once(store, POINTS * REPLICATES)
    with Store(store) as opened:
        return {
            (canonical_json(point.parameters), point.replicate): (point.seed, bits(opened.value(point)))
            for point in opened.points(opened.batch(), results=True)
        }


def batch_of(directory: Path, function: str, name: str, numbers: list[int]) -> Batch:
    return Batch(
        f"survive.py:{function}",
        sweep(x=numbers),
        name="same",
        store=directory / f"{name}.db",
        directory=directory,
        seed=SEED,
        replicates=REPLICATES,
    )


def reference(directory: Path, function: str) -> Results:
    """What one process alone computes, one point after another."""
    batch = batch_of(directory, function, "reference", list(range(POINTS)))
    assert batch.run(InlineExecutor()).done == POINTS * REPLICATES
    found = stored(batch.store)
    assert len(found) == POINTS * REPLICATES
    assert len({seed for seed, _ in found.values()}) == len(found)
    for x in range(POINTS):
        for replicate in range(REPLICATES):
            assert found[canonical_json({"x": x}), replicate][0] == point_seed(SEED, {"x": x}, replicate)
    return found


@pytest.mark.parametrize("shuffled", [False, True], ids=["ordered", "shuffled"])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_with_any_number_of_workers_in_any_order(
    tmp_path: Path, environment: dict[str, str], function: str, workers: int, shuffled: bool
) -> None:
    numbers = list(range(POINTS))
    if shuffled:
        random.Random(workers).shuffle(numbers)
    batch = batch_of(tmp_path, function, f"with{workers}", numbers)
    with LocalExecutor(max_workers=workers, env=environment) as executor:
        assert batch.run(executor).done == POINTS * REPLICATES
    assert stored(batch.store) == reference(tmp_path, function)


@pytest.fixture
def killing(command_line: CommandLine, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Killing:
    return Killing(command_line, monkeypatch.setenv)


def arguments(function: str) -> list[str]:
    given = f"survive.py:{function}", "-p", f"x=0:{POINTS - 1}:1"
    return [*given, "--seed", str(SEED), "--replicates", str(REPLICATES)]


def test_killed_and_resumed(killing: Killing, function: str) -> None:
    for number, changes in enumerate([2, 12, 20]):
        assert killing.kill_at(killing.start(number, *arguments(function)), changes)
    killing.run_to_the_end("last", *arguments(function))
    found = stored(killing.store)
    killing.calls.unlink()
    assert found == reference(killing.directory, function)


def test_shared_by_two_processes(killing: Killing, function: str) -> None:
    processes = [killing.start(number, *arguments(function)) for number in range(2)]
    for process in processes:
        _, stderr = process.communicate(timeout=100)
        assert process.returncode == 0, stderr
    assert stored(killing.store) == reference(killing.directory, function)

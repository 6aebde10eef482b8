"""What the tests of `jobrunner.qiskit` have in common; without Qiskit there are none."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobrunner import LocalExecutor, set_executor, use_executor
from tests.core.gates import Gate

if importlib.util.find_spec("qiskit") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="module")
def executor() -> Iterator[LocalExecutor]:
    """Two workers, which have loaded Qiskit when they are first used."""
    with LocalExecutor(2, preload=["qiskit.primitives"]) as made:
        yield made


@pytest.fixture(autouse=True)
def default_executor(executor: LocalExecutor) -> Iterator[None]:
    """That is the default of these tests, in all of their threads, so that none of them leaves workers behind."""
    set_executor(executor)
    with use_executor(executor):
        yield
    set_executor(None)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A place where jobs and the test meet."""
    made = Gate(tmp_path / "gate")
    yield made
    made.close()

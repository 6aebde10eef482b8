"""What the tests of joblib's backend share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobrunner.joblib.pools import POOLS
from tests.core.gates import Gate


@pytest.fixture(scope="module", autouse=True)
def no_executors_kept() -> Iterator[None]:
    """What is kept for joblib's next call is ended: the core's tests look for processes left behind."""
    yield
    for pool in list(POOLS._pools):
        pool.executor.shutdown(kill_workers=True)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A place where tasks and the test meet."""
    made = Gate(tmp_path / "gate")
    yield made
    made.close()

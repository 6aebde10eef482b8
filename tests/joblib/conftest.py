"""What the tests of joblib's backend share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.core.gates import Gate


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A place where tasks and the test meet."""
    made = Gate(tmp_path / "gate")
    yield made
    made.close()

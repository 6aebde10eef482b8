"""A plugin of pytest's: calls of Parallel that name no backend are ours."""

from __future__ import annotations

from collections.abc import Iterator

import joblib
import pytest

import jobrunner

jobrunner.register_joblib()


@pytest.fixture(autouse=True)
def ours() -> Iterator[None]:
    """Our backend, for each test."""
    with joblib.parallel_config(backend="jobrunner"):
        yield

"""The examples in docstrings run, and say what they print."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import jobrunner
from jobrunner import LocalExecutor, use_executor

# Importing it runs the command line.
MODULES = [
    "jobrunner",
    *(m.name for m in pkgutil.walk_packages(jobrunner.__path__, "jobrunner.") if "__main__" not in m.name),
]


@pytest.mark.parametrize("name", [*MODULES, "examples.ising", "examples.option_pricing"])
def test_examples_in_docstrings_run(name: str) -> None:
    if name.startswith("examples."):
        pytest.importorskip("numpy")
    if name.startswith("jobrunner.qiskit"):
        pytest.importorskip("qiskit")
    # None of them leaves workers behind.
    with LocalExecutor(2) as executor, use_executor(executor):
        assert doctest.testmod(importlib.import_module(name)).failed == 0

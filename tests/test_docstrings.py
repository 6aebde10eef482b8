"""The examples in docstrings run, and say what they print."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re

import pytest

import jobrunner
from jobrunner import LocalExecutor, use_executor
from tests.documents import ROOT

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


@pytest.mark.parametrize("package", ["jobrunner", "jobrunner.qiskit"])
def test_every_public_name_has_a_docstring_and_a_place_in_the_reference(package: str) -> None:
    if package == "jobrunner.qiskit":
        pytest.importorskip("qiskit")
    exported = importlib.import_module(package)
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))
    places = re.findall(r"^::: ([\w.]+)$", pages, re.MULTILINE)
    # A module's place shows all that it has.
    modules = [place for place in places if place.rpartition(".")[2] == "errors"]
    for name in exported.__all__:
        value = getattr(exported, name)
        if name != "__version__":
            found = f"{package}.{name}" in places or getattr(value, "__module__", "") in modules
            assert found or f"{value.__module__}.{name}" in places, name
            assert value.__doc__, name

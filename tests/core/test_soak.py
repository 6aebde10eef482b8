"""After long use, or much trouble, an executor takes no more memory, descriptors, threads or names than before.

Each soak is a program of its own: see `soaking`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.core.scripts import Script

_PROGRAM = """
import sys
from tests.core import soaking
if __name__ == "__main__":
    getattr(soaking, sys.argv[1])(*map(int, sys.argv[2:]))
"""

Run = Callable[..., Script]


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_a_million_tiny_jobs_leave_caller_and_workers_as_they_were(script: Run) -> None:
    script(_PROGRAM, "tiny_jobs", 900_000, 100_000).check(380)


def test_fifty_thousand_tiny_jobs_leave_caller_and_workers_as_they_were(script: Run) -> None:
    script(_PROGRAM, "tiny_jobs", 50_000, 10_000).check()


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_hundreds_of_deaths_and_cancels_leave_nothing_behind(script: Run) -> None:
    script(_PROGRAM, "deaths_and_cancels", 200).check(280)


def test_some_deaths_and_cancels_leave_nothing_behind(script: Run) -> None:
    script(_PROGRAM, "deaths_and_cancels", 10).check()


def test_captured_output_leaves_nothing_behind(script: Run) -> None:
    script(_PROGRAM, "captured", 2000).check()


def test_watched_memory_leaves_nothing_behind(script: Run) -> None:
    script(_PROGRAM, "limited", 2000).check()

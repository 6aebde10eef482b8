"""A plugin of pytest that runs a package's own tests with `jobrunner.qiskit.enable` in force.

At the end it tells, as one line of JSON behind a marker, how many jobs ran where, and which functions fell back to a
thread because they can't be sent.
"""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from typing import Any

import pytest

import jobrunner.qiskit
from jobrunner.qiskit import FellBackToThreadWarning, PrimitiveJob

__all__ = ["MARKER"]

MARKER = "jobrunner-qiskit:"

_ran: Counter[str] = Counter()
_fell_back: dict[str, list[str]] = {}
_current = ""


def _watch() -> None:
    adopt, refuse = PrimitiveJob._adopt, PrimitiveJob._refuse

    def counting_adopt(self: Any, future: Any) -> None:
        _ran["process" if hasattr(future, "job_id") else "thread"] += 1
        adopt(self, future)

    def telling_refuse(self: Any, error: Any) -> None:
        _fell_back.setdefault(_current, []).append(str(error))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FellBackToThreadWarning)
            refuse(self, error)

    setattr(PrimitiveJob, "_adopt", counting_adopt)  # noqa: B010
    setattr(PrimitiveJob, "_refuse", telling_refuse)  # noqa: B010


def pytest_configure(config: pytest.Config) -> None:
    """Put our jobs in force."""
    _watch()
    jobrunner.qiskit.enable(min_seconds=float(os.environ.get("JOBRUNNER_QISKIT_MIN_SECONDS", "0")))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note which test is running."""
    global _current
    _current = item.nodeid


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Tell where jobs ran."""
    terminalreporter.write_line(MARKER + json.dumps({"ran": _ran, "fell_back": _fell_back}))

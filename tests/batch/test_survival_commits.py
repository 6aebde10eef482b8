"""Whichever system call of a commit a process dies at, the store has all of the commit or nothing, and goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="system calls are stopped at with Linux's ptrace")

#: The exit code of the program where the system forbids ptrace, as some containers do.
NOT_ALLOWED = 77


def trace(case: str, journal: str, step: int, directory: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("survival_ptrace.py")), case, journal, str(step), str(directory)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    if ended.returncode == NOT_ALLOWED:
        pytest.skip("ptrace is not allowed here")
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("journal", ["wal", "journal"])
@pytest.mark.parametrize("case", ["ledger", "growth", "creation"])
def test_a_death_at_some_system_calls_leaves_all_or_nothing(case: str, journal: str, tmp_path: Path) -> None:
    trace(case, journal, {"ledger": 11, "growth": 29, "creation": 37}[case], tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("journal", ["wal", "journal"])
@pytest.mark.parametrize("case", ["ledger", "growth", "creation"])
def test_a_death_at_any_system_call_leaves_all_or_nothing(case: str, journal: str, tmp_path: Path) -> None:
    trace(case, journal, 1, tmp_path)

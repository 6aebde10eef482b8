"""Each example runs as a script, from a directory of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("library_use.py", ["primes: [1229, 2262, 3245]", "cancelled: True - CANCELLED", "its status is DONE"]),
        ("option_pricing.py", ["strike  volatility", "   120         0.4"]),
        ("ising.py", ["all energies agree with the exact solution"]),
    ],
)
def test_an_example_runs_as_a_script(tmp_path: Path, name: str, expected: list[str]) -> None:
    if name != "library_use.py":
        pytest.importorskip("numpy")
    ran = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    for text in expected:
        assert text in ran.stdout


def test_every_example_is_run_here_or_by_its_spec() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == {
        "library_use.py",
        "option_pricing.py",
        "ising.py",
    }

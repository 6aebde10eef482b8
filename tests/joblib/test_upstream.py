"""joblib's own tests of Parallel pass with our backend, as far as they apply to any."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("joblib")

from tests.joblib.upstream import LEFT_OUT, write_tests

_ROOT = Path(__file__).parents[2]


def _passed(directory: Path, selected: str, *arguments: str) -> int:
    """Run tests of joblib's, which are to pass; how many did."""
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", selected, *arguments],
        cwd=directory,
        # What joblib's tests warn of is theirs.
        env={**os.environ, "PYTHONPATH": str(_ROOT), "PYTHONWARNINGS": ""},
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert ran.returncode == 0, ran.stdout
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert passed is not None, ran.stdout
    return int(passed.group(1))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_joblibs_own_tests_pass(tmp_path: Path) -> None:
    path = write_tests(tmp_path)
    # By its name, or as an instance; the others are of other backends.
    selected = " and ".join(["(jobrunner or backend1)", *(f"not ({part})" for part in LEFT_OUT)])
    assert _passed(tmp_path, selected, path.name) > 100


def test_what_joblib_caches_is_cached_by_our_jobs_too(tmp_path: Path) -> None:
    # Its tests of Memory, and of finding a function's source, that call Parallel.
    selected = "parallel_call_cached or race_condition_when_persisting or func_code_consistency"
    files = ("joblib.test.test_memory", "joblib.test.test_func_inspect")
    assert _passed(tmp_path, selected, "-p", "tests.joblib.ours_by_default", "--pyargs", *files) >= 6

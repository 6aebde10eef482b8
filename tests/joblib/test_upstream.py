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


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_joblibs_own_tests_pass(tmp_path: Path) -> None:
    path = write_tests(tmp_path)
    # By its name, or as an instance; the others are of other backends.
    selected = " and ".join(["(jobrunner or backend1)", *(f"not ({part})" for part in LEFT_OUT)])
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", selected, path.name],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert ran.returncode == 0, ran.stdout
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert passed is not None
    assert int(passed.group(1)) > 100, ran.stdout

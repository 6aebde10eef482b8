"""The comparison of a package's own tests, stock and with our jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("qiskit")

from benchmarks.upstream.__main__ import Outcome, compare, run_file

_TESTS = """
import os, threading, unittest
from qiskit.primitives import PrimitiveJob

class TestJobs(unittest.TestCase):
    def submit(self, function, *args):
        job = PrimitiveJob(function, *args)
        job._submit()
        return job.result()

    def test_both(self):
        self.assertEqual(self.submit(pow, 2, 3), 8)

    def test_only_stock(self):
        self.assertEqual(self.submit(os.getpid), os.getpid())

    def test_falls_back(self):
        lock = threading.Lock()
        self.assertEqual(self.submit(lambda: lock.locked()), False)

    def test_never(self):
        self.fail()
"""


def test_a_file_is_run_both_ways(tmp_path: Path) -> None:
    (tmp_path / "test_jobs.py").write_text(_TESTS)
    stock, ours = run_file(tmp_path, "test_jobs.py", False), run_file(tmp_path, "test_jobs.py", True)
    assert sorted(stock.tests.values()) == ["failed", "passed", "passed", "passed"]
    assert ours.ran == {"process": 2, "thread": 1}
    lost, expected = compare(stock, ours)
    assert expected == []
    assert [line.split("::")[-1].split(":")[0] for line in lost] == ["test_only_stock", "test_falls_back"]
    assert "lock" in lost[1]


def test_what_is_expected_is_told_with_its_reason() -> None:
    stock = Outcome({"a::test_job_size_limit_backend_v2": "passed", "a::test_other": "failed"}, {}, {})
    ours = Outcome({"a::test_job_size_limit_backend_v2": "failed", "a::test_other": "failed"}, {}, {})
    lost, expected = compare(stock, ours)
    assert lost == []
    assert expected == [
        "a::test_job_size_limit_backend_v2: counts the calls of a mock in the calling process; "
        "they are made in the worker"
    ]

"""`jobrunner doctor`: what it finds is true, and a worker that does not work is told."""

from __future__ import annotations

import json
import platform
from typing import Any

import pytest
from click.testing import CliRunner

from jobrunner import __version__
from jobrunner.cli.app import app


def test_doctor_finds_a_worker_that_works() -> None:
    ran = CliRunner().invoke(app, ["doctor", "--json"])
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.output)
    assert set(found) == {"machine", "versions", "engines", "limits", "worker", "warnings"}
    assert found["versions"]["jobrunner"] == __version__
    assert found["versions"]["python"].endswith(platform.python_version())
    assert found["worker"]["works"] is True
    assert found["worker"]["first_job_s"] > 0
    assert found["limits"]["default_max_workers"] >= 1
    assert set(found["engines"]) == {"local", "inline", "dask", "ray"}


def test_doctor_is_readable() -> None:
    ran = CliRunner().invoke(app, ["doctor"])
    assert ran.exit_code == 0, ran.output
    assert "GiB" in ran.output
    assert "first job" in ran.output


def test_a_worker_that_does_not_start_is_told_with_exit_code_3(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**options: Any) -> None:
        raise OSError("no processes left")

    monkeypatch.setattr("jobrunner.cli.doctor.LocalExecutor", broken)
    ran = CliRunner().invoke(app, ["doctor"])
    assert ran.exit_code == 3
    assert "warning: no worker could be started: OSError: no processes left" in ran.output


def test_limits_that_are_too_small_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    from jobrunner.cli import doctor

    limits = {
        "default_max_workers": 64,
        "open_files_hard": 256,
        "shared_memory_free_bytes": 2**20,
        "cpus_by_cgroup": 0.5,
    }
    monkeypatch.setattr(doctor, "_limits", lambda: limits)
    warnings = " ".join(doctor.diagnose()["warnings"])
    assert "at most 256 files" in warnings
    assert "/dev/shm has only 1 MiB" in warnings
    assert "0.5 of a CPU" in warnings

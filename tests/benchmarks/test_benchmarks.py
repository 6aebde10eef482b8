"""The benchmarks run, for every case and every peer that is installed, and their figures are put together rightly.

No time is asserted: what the figures say is for a quiet machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.cases import CASES, Measurement, Scale
from benchmarks.peers import PEERS, installed
from benchmarks.runner import Run, Series

ROOT = Path(__file__).resolve().parents[2]


def _benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "160"},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_every_case_runs_for_every_peer_that_it_applies_to(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    ran = _benchmarks("--quick", "--repeats", "1", "--json", str(file))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    document: dict[str, Any] = json.loads(file.read_text())
    measured = {benchmark["metadata"]["name"] for benchmark in document["benchmarks"]}
    peers = [peer for peer in PEERS.values() if installed(peer)]
    assert measured == {f"{case.name}/{peer.name}" for case in CASES.values() for peer in peers if case.applies(peer)}
    for peer in peers:
        assert f"{peer.name} " in ran.stdout
    notes = {b["metadata"]["peer"]: b["metadata"]["note"] for b in document["benchmarks"] if "note" in b["metadata"]}
    if hasattr(os, "mkfifo"):
        assert notes["jobrunner"] == "jobs beside it: kept"


def test_cases_and_peers_are_chosen_and_the_json_is_pyperfs(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    chosen = ("round_trip", "--peers", "multiprocessing.Pool")
    ran = _benchmarks(*chosen, "--quick", "--repeats", "2", "--workers", "1", "--json", str(file))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    document: dict[str, Any] = json.loads(file.read_text())
    assert document["version"] == "1.0"
    assert document["metadata"]["workers"] == 1
    assert [each["metadata"]["peer"] for each in document["benchmarks"]] == ["jobrunner", "multiprocessing.Pool"]
    for benchmark in document["benchmarks"]:
        assert benchmark["metadata"]["unit"] == "second"
        assert len(benchmark["runs"]) == 2
        for run in benchmark["runs"]:
            assert all(value > 0 for value in run["values"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "nonsense"),
        (["--peers", "nonsense"], "none of jobrunner, loky"),
        (["--workers", "0"], "workers"),
    ],
)
def test_wrong_use_is_told(arguments: list[str], said: str) -> None:
    ran = _benchmarks(*arguments)
    assert ran.returncode == 2
    assert said in ran.stderr


def _run(**seconds: list[float]) -> Run:
    """A run of one case with these samples; names as in `PEERS`, with underscores."""
    series = []
    for name, values in seconds.items():
        peer = PEERS[name.replace("_", ".")]
        series.append(Series(CASES["throughput"], peer, [Measurement(value) for value in values], [0.0] * len(values)))
    return Run(series=series, workers=2, repeats=3, scale=Scale.quick(), began=0.0, load=None)


def test_the_ratio_is_to_the_best_of_the_others() -> None:
    found = {row.series.peer.name: row for row in report.rows(_run(jobrunner=[1, 2, 9], loky=[4, 4, 4], pebble=[8]))}
    assert (found["jobrunner"].median, found["jobrunner"].low, found["jobrunner"].high) == (2, 1, 9)
    assert [row.ratio for row in found.values()] == [0.5, 1.0, 2.0]


def test_a_series_without_samples_has_no_figures_and_no_place_in_the_json() -> None:
    run = _run(jobrunner=[1.0], loky=[])
    run.series[1].errors.append("it fell over")
    assert report.rows(run)[1].median is None
    assert report.rows(run)[0].ratio is None
    assert [each["metadata"]["name"] for each in report.as_pyperf(run)["benchmarks"]] == ["throughput/jobrunner"]
    assert report.failed(run) == [run.series[1]]

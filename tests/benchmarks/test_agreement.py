"""The comparison with pyperf runs, and reports every run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("pyperf")

from benchmarks import agreement


def test_a_short_run_reports_each_kernel_and_the_ratio_under_load(tmp_path: Path) -> None:
    options = ["--runs", "1", "--samples", "1", "--turns", "1", "--fast", "--json", str(tmp_path / "out.json")]
    ran = CliRunner().invoke(agreement.main, options)
    assert ran.exit_code == 0, ran.output
    lines = ran.output.splitlines()
    assert [line.partition(":")[0] for line in lines] == [*agreement.KERNELS, "unfold by fold"]
    kept = json.loads((tmp_path / "out.json").read_text())
    assert set(kept["agreement"][0]) == {"pyperf", "jobrunner", "ratio"}
    for measured in kept["agreement"][0].values():
        assert set(measured) == set(agreement.KERNELS)
        assert all(seconds > 0 for seconds in measured.values())
    assert len(kept["quiet"]) == len(kept["busy"]) == 1


def test_spread_and_median_are_of_all_runs() -> None:
    runs = [
        {
            "pyperf": dict.fromkeys(agreement.KERNELS, 1e-6),
            "jobrunner": dict.fromkeys(agreement.KERNELS, ours * 1e-6),
            "ratio": dict.fromkeys(agreement.KERNELS, ours),
        }
        for ours in (1.0, 1.1, 0.9)
    ]
    lines = agreement.report_agreement(runs)
    assert "jobrunner by pyperf 1.000 1.100 0.900; median 1.000" in lines[0]
    assert "spread 0.0 % and 20.0 %" in lines[0]

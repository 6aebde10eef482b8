"""The comparison with pyperf runs, and reports every run."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    assert [line.partition(":")[0] for line in lines] == [*agreement.KERNELS, "spread of all", "unfold by fold"]
    kept = json.loads((tmp_path / "out.json").read_text())
    assert set(kept["agreement"][0]) == {"pyperf", "jobrunner", "ratio"}
    for measured in kept["agreement"][0].values():
        assert set(measured) == set(agreement.KERNELS)
        assert all(seconds > 0 for seconds in measured.values())
    assert len(kept["quiet"]) == len(kept["busy"]) == 1


def runs_of(theirs: Sequence[float], ours: Sequence[float]) -> list[agreement.Run]:
    return [
        {
            "pyperf": dict.fromkeys(agreement.KERNELS, their * 1e-6),
            "jobrunner": dict.fromkeys(agreement.KERNELS, our * 1e-6),
            "ratio": dict.fromkeys(agreement.KERNELS, our / their),
        }
        for their, our in zip(theirs, ours, strict=True)
    ]


def test_spread_and_median_are_of_all_runs() -> None:
    lines = agreement.report_agreement(runs_of((1.0, 1.0, 1.0), (1.0, 1.1, 0.9)))
    assert "jobrunner by pyperf 1.000 1.100 0.900; median 1.000" in lines[0]
    assert "spread 0.0 % and 20.0 %" in lines[0]


def test_a_spread_that_is_wider_is_told_from_one_that_happens_to_be() -> None:
    wider = agreement.report_spread(runs_of((1.0, 1.01, 0.99, 1.0, 1.01), (1.0, 1.1, 0.9, 1.1, 0.9)))
    assert wider == "spread of all: 0.8 % and 8.9 %; as much wider by chance 0.00"
    alike = agreement.report_spread(runs_of((1.0, 1.1, 0.9, 1.0, 1.01), (1.0, 1.01, 0.99, 1.1, 0.9)))
    assert alike.startswith("spread of all: 6.3 % and 6.4 %; as much wider by chance 0.")
    assert float(alike.rpartition(" ")[2]) > 0.4

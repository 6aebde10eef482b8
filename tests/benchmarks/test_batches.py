"""The measurement of a store's cost runs, and tells what it measured."""

from __future__ import annotations

from click.testing import CliRunner

from benchmarks.batches import main


def test_it_tells_the_ratio_and_the_steps_of_a_large_batch() -> None:
    ran = CliRunner().invoke(main, ["--jobs", "20", "--length", "0.001", "--repeats", "1", "--points", "2000"])
    assert ran.exit_code == 0, ran.output
    lines = ran.output.splitlines()
    assert lines[0].startswith("20 jobs of 0.001 s on 2 workers: with a store ")
    assert [line.partition(":")[0] for line in lines[1:]] == [
        "2,000 points, first start",
        "2,000 points, resume, the same",
        "2,000 points, resume, one point more",
        "2,000 points, jobrunner status",
    ]

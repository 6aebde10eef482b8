"""`Batch` as a program meets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobrunner import Batch, InlineExecutor, SpecError, sweep


def scaled(x: int, by: int) -> int:
    return x * by


def test_fixed_parameters_may_stand_among_the_points_too_as_those_of_a_spec_do(tmp_path: Path) -> None:
    points = sweep(x=[1, 2]) * sweep(by=[10])
    batch = Batch(scaled, points, fixed={"by": 10}, name="scaled", store=tmp_path / "s.db")
    assert batch.run(InlineExecutor()).done == 2
    assert batch.record().fixed == {"by": 10}
    assert [value for _, value in batch.results()] == [10, 20]


@pytest.mark.parametrize("by", [[10, 20], [20]])
def test_a_fixed_parameter_with_another_value_among_the_points_is_refused(tmp_path: Path, by: list[int]) -> None:
    with pytest.raises(SpecError, match="by: the parameter is given twice"):
        Batch(scaled, sweep(x=[1], by=by), fixed={"by": 10}, name="scaled", store=tmp_path / "s.db")


def test_a_spec_with_fixed_parameters_runs(tmp_path: Path) -> None:
    (tmp_path / "sim.py").write_text("def scaled(x, by):\n    return x * by\n")
    spec = tmp_path / "scaled.toml"
    spec.write_text('[batch]\ntarget = "sim.py:scaled"\n[sweep]\nx = "1:3"\n[fixed]\nby = 5\n')
    from jobrunner.cli.plan import Request, make_plan

    batch = make_plan(Request(what=str(spec), store=str(tmp_path / "s.db"))).batch
    assert batch.run(InlineExecutor()).done == 3
    assert batch.run(InlineExecutor()).skipped == 3

"""`progress=` takes a function or a class of tqdm's; `benchmark` too."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any

import pytest

from jobrunner import Batch, InlineExecutor, benchmark, sweep
from jobrunner.batch.tellers import in_notebook, is_tqdm, make_teller


def halved(x: int) -> float:
    if x == 3:
        raise ValueError("three")
    return x / 2


def test_a_function_is_told_how_many_points_have_ended(tmp_path: Path) -> None:
    told: list[tuple[int, int, int]] = []
    batch = Batch(halved, sweep(x=[1, 2, 3, 4]), name="halved", store=tmp_path / "s.db")
    batch.run(InlineExecutor(), progress=lambda *numbers: told.append(numbers))
    assert told[0] == (0, 0, 4)
    assert told[-1] == (4, 1, 4)
    assert told == sorted(told)
    again: list[tuple[int, int, int]] = []
    batch.run(InlineExecutor(), progress=lambda *numbers: again.append(numbers))
    assert again[0] == (4, 1, 4)


def test_a_class_of_tqdms_makes_the_bar(tmp_path: Path) -> None:
    tqdm: Any = pytest.importorskip("tqdm").tqdm
    shown = io.StringIO()

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, file=shown, mininterval=0, **kwargs)

    assert is_tqdm(tqdm)
    assert is_tqdm(Bar)
    Batch(halved, sweep(x=[1, 2, 3, 4]), name="halved", store=tmp_path / "s.db").run(InlineExecutor(), progress=Bar)
    assert "halved: 100%" in shown.getvalue()
    assert "4/4" in shown.getvalue()
    assert "1 failed" in shown.getvalue()


def test_a_partial_of_a_class_of_tqdms_is_that_class_with_options(tmp_path: Path) -> None:
    tqdm: Any = pytest.importorskip("tqdm").tqdm
    shown = io.StringIO()
    made = []

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    options = functools.partial(functools.partial(Bar, file=shown), mininterval=0, leave=False, unit="point")
    batch = Batch(halved, sweep(x=[1, 2, 3, 4]), name="halved", store=tmp_path / "s.db")
    batch.run(InlineExecutor(), progress=options)
    (bar,) = made
    assert (bar.n, bar.total, bar.desc, bar.unit, bar.leave) == (4, 4, "halved", "point", False)
    assert "1 failed" in shown.getvalue()
    batch.run(InlineExecutor(), progress=functools.partial(options, desc="again", total=1))
    assert (made[1].n, made[1].total, made[1].desc) == (4, 4, "again")
    batch.run(InlineExecutor(), progress=functools.partial(options, disable=True))
    benchmark(halved, points={"x": [1]}, samples=1, progress=options, affinity=False)
    assert (made[3].total, made[3].unit) == (1, "point")
    assert len(made) == 4


def test_a_partial_of_a_function_is_a_function() -> None:
    assert not is_tqdm(functools.partial(print, end=""))


def test_a_bar_of_tqdms_is_refused(tmp_path: Path) -> None:
    tqdm: Any = pytest.importorskip("tqdm").tqdm
    batch = Batch(halved, sweep(x=[1]), name="halved", store=tmp_path / "s.db")
    with tqdm(total=1, file=io.StringIO()) as bar:
        with pytest.raises(ValueError, match=r"a class of tqdm's, not a bar: give the class, or a functools\.partial"):
            batch.run(InlineExecutor(), progress=bar)
        with pytest.raises(ValueError, match="a class of tqdm's, not a bar: give the class"):
            benchmark(halved, points={"x": [1]}, samples=1, progress=bar, affinity=False)
    assert not (tmp_path / "s.db").exists()


def test_a_benchmark_takes_one_too() -> None:
    tqdm: Any = pytest.importorskip("tqdm").tqdm
    shown = io.StringIO()

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, file=shown, mininterval=0, **kwargs)

    result = benchmark(halved, points={"x": [1]}, samples=1, progress=Bar, affinity=False)
    assert "halved" in shown.getvalue()
    pandas = pytest.importorskip("pandas")
    table = result.dataframe()
    assert isinstance(table, pandas.DataFrame)
    assert list(table["x"].unique()) == [1]
    assert (table["seconds"] > 0).all()


def test_what_is_no_mode_is_refused_before_anything_runs(tmp_path: Path) -> None:
    batch = Batch(halved, sweep(x=[1]), name="halved", store=tmp_path / "s.db")
    with pytest.raises(ValueError, match="a function or a class of tqdm's, not 'often'"):
        batch.run(InlineExecutor(), progress="often")
    assert not (tmp_path / "s.db").exists()
    assert make_teller("plain", "x") is None
    assert not in_notebook()

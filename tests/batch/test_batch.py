"""`Batch` as a program meets it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import csv
import datetime
import decimal
import math
import pickle
import sqlite3
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from jobrunner import Batch, InlineExecutor, LocalExecutor, SpecError, StoreError, sweep
from jobrunner.batch import Outcome, StopRequest
from jobrunner.batch.export import export
from jobrunner.batch.store import Store
from jobrunner.storage.connection import connect


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


def unstorable_above_5(x: int) -> object:
    return threading.Lock() if x > 5 else x


def test_a_result_that_cannot_be_stored_is_a_failure_of_its_point_in_every_respect(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    outcomes: list[Outcome] = []
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        few = Batch(unstorable_above_5, sweep(x=range(1, 6)), name="locks", store=store)
        assert few.run(threads).done == 5
        more = Batch(unstorable_above_5, sweep(x=range(1, 101)), name="locks", store=store, max_failures=2)
        summary = more.run(threads, on_outcome=outcomes.append)
    assert (summary.done, summary.skipped, summary.stopped) == (0, 5, "2 points have failed")
    assert {outcome.status.value for outcome in outcomes} <= {"failed", "cancelled"}
    assert "can't be stored" in str(outcomes[0].cause)


def seeded(x: int, seed: int) -> dict[str, object]:
    return {"x": -x, "seed": seed, "at": {"end": x}}


def test_a_data_frame_has_a_column_for_each_parameter_and_each_column_of_the_results(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    batch = Batch(seeded, sweep(x=[1, 2]), name="seeded", store=tmp_path / "s.db", seed=1)
    batch.run(InlineExecutor())
    table = batch.dataframe()
    assert list(table.columns) == ["x", "result.x", "seed", "at.end"]
    assert table["result.x"].tolist() == [-1, -2]


def of_kind(kind: str, x: int) -> object:
    import pandas

    return {
        "floats": math.nan if x == 1 else x * math.inf if x else 0.5,
        "complex": complex(x, 1),
        "datetimes": datetime.datetime(2020, 1, 1 + x),
        "timestamps": pandas.Timestamp("2020-01-01", tz="UTC") if x else pandas.NaT,
        "numpy": np_float32(x),
        "decimals": decimal.Decimal("1.5"),
        "bytes": b"ab",
        "large": 2**70,
        "dates": datetime.date(2020, 1, 1),
        "tables": pandas.DataFrame({"q": [x]}),
        "series": pandas.Series([x, x]),
        "tuples": (x, math.nan),
    }[kind]


def np_float32(x: int) -> object:
    import numpy

    return numpy.float32(x)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("floats", "float"),
        ("complex", "complex"),
        ("datetimes", "datetime"),
        ("timestamps", "datetimetz"),
        ("numpy", "float"),
        ("decimals", "object"),
        ("bytes", "object"),
        ("large", "object"),
        ("dates", "object"),
        ("tables", "object"),
        ("series", "object"),
        ("tuples", "object"),
    ],
)
def test_a_data_frame_has_the_values_as_they_are(tmp_path: Path, kind: str, dtype: str) -> None:
    pandas = pytest.importorskip("pandas")
    batch = Batch(of_kind, sweep(kind=[kind], x=[0, 1, 2]), name=kind, store=tmp_path / "s.db")
    assert batch.run(InlineExecutor()).done == 3
    column = batch.dataframe()["result"]
    assert list(pandas.DataFrame({"result": column}).select_dtypes(dtype)) == ["result"]
    returned = [of_kind(kind, x) for x in range(3)]
    if kind == "floats":
        assert column.isna().tolist() == [False, True, False]
        assert column.iloc[[0, 2]].tolist() == [0.5, math.inf]
        assert column[:2].mean() == 0.5
    elif kind in ("tables", "series"):
        assert all(cell.equals(value) for cell, value in zip(column, returned, strict=True))
    elif kind == "tuples":
        assert [cell[0] for cell in column] == [0, 1, 2]
        assert all(math.isnan(cell[1]) for cell in column)
    else:
        assert column.dropna().tolist() == [value for value in returned if value is not pandas.NaT]


def undefined_above_0(x: int, seed: int) -> float:
    return math.nan if x else 1.0


def test_a_data_frame_of_replicates_has_nan_as_the_mean_of_nan(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    batch = Batch(undefined_above_0, sweep(x=[0, 1]), name="nan", store=tmp_path / "s.db", seed=1, replicates=2)
    batch.run(InlineExecutor())
    table = batch.dataframe()
    assert list(table.columns) == ["x", "result_mean", "result_sem", "replicates"]
    assert table["result_mean"].isna().tolist() == [False, True]
    assert table["result_sem"].isna().tolist() == [False, True]
    assert table["result_mean"].mean() == 1.0


def fails_at(x: int, at: list[int]) -> dict[str, object]:
    if x in at:
        raise ValueError(f"at {x}")
    return {"square": x * x, "even": x % 2 == 0}


def test_a_data_frame_has_rows_of_points_that_are_done_and_the_columns_of_parameters_in_any_case(
    tmp_path: Path,
) -> None:
    pytest.importorskip("pandas")
    some = Batch(fails_at, sweep(x=[1, 2, 3]), fixed={"at": [2]}, name="some", store=tmp_path / "s.db")
    some.run(InlineExecutor())
    table = some.dataframe()
    assert list(table.columns) == ["x", "at", "square", "even"]
    assert table["x"].tolist() == [1, 3]
    assert [table[name].dtype.kind for name in ("square", "even")] == ["i", "b"]
    none = Batch(fails_at, sweep(x=[1, 2]), fixed={"at": [1, 2]}, name="none", store=tmp_path / "s.db")
    none.run(InlineExecutor())
    assert list(none.dataframe().columns) == ["x", "at"]
    assert len(none.dataframe()) == 0


def returns_x(x: int = 0, y: int = 0) -> dict[str, int]:
    return {"x": -x, "result.x": 10 * y}


def test_no_column_of_a_data_frame_takes_anothers_name(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    batch = Batch(returns_x, [{"y": 1}, {"x": 2}], name="differing", store=tmp_path / "s.db")
    batch.run(InlineExecutor())
    table = batch.dataframe()
    assert sorted(table.columns) == ["result.result.x", "result.x", "x", "y"]
    assert table["x"].isna().tolist() == [True, False]
    assert table["result.x"].tolist() == [0, -2]
    assert table["result.result.x"].tolist() == [10, 0]


def test_a_data_frame_without_pandas_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"jobrunner\[pandas\]"):
        Batch(scaled, [{"x": 1, "by": 2}], name="scaled", store=tmp_path / "s.db").dataframe()


def test_a_stop_while_points_are_stored_leaves_the_store_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobrunner.batch.registry._PROGRESS_STEP", 10)
    store = tmp_path / "s.db"
    stop = StopRequest()
    stop.request()
    batch = Batch(scaled, sweep(x=range(100), by=[1]), name="scaled", store=store)
    summary = batch.run(InlineExecutor(), stop=stop)
    assert (summary.total, summary.done, summary.cancelled) == (100, 0, 100)
    with Store(store) as opened:
        assert opened.batches() == []
    assert batch.run(InlineExecutor()).done == 100


def test_a_run_waits_while_the_points_of_another_batch_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than a store that is locked is waited for otherwise."""
    monkeypatch.setattr("jobrunner.storage.connection._LOCKED_S", 0.2)
    store = tmp_path / "s.db"
    running, stored = threading.Event(), threading.Event()
    batch = Batch(scaled, sweep(x=range(200), by=[1]), name="scaled", store=store)

    def lock() -> None:
        running.wait(60)
        with contextlib.closing(connect(store, write=True)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            stored.wait(0.5)  # nobody sets it: this is how long the lock is held
            connection.execute("ROLLBACK")

    locking = threading.Thread(target=lock)
    locking.start()
    summary = batch.run(InlineExecutor(), on_outcome=lambda outcome: running.set())
    locking.join()
    assert summary.done == 200


def test_a_seed_that_has_no_digits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seed must have at most 10000 bits"):
        Batch(scaled, sweep(x=[1], by=[1]), name="scaled", store=tmp_path / "s.db", seed=10**5000)


def test_points_are_not_taken_out_of_a_batch_that_is_being_run(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    fewer = Batch(scaled, sweep(x=[0], by=[1]), name="scaled", store=store)
    refused: list[StoreError] = []

    def shrink(outcome: Outcome) -> None:
        try:
            fewer.run(InlineExecutor())
        except StoreError as error:
            refused.append(error)

    batch = Batch(scaled, sweep(x=range(3), by=[1]), name="scaled", store=store)
    summary = batch.run(InlineExecutor(), on_outcome=shrink)
    assert (summary.total, summary.done) == (3, 3)
    assert "is being run by another process" in str(refused[0])


def removes(store: str) -> None:
    """Remove the store of the batch, and stay."""
    for name in ("", "-wal", "-shm"):
        Path(f"{store}{name}").unlink(missing_ok=True)
    threading.Event().wait()


def test_a_run_whose_store_is_removed_ends_with_an_error(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    batch = Batch(removes, [{"store": str(store)}], name="removes", store=store)
    with pytest.raises(StoreError, match="was removed, renamed or replaced"), LocalExecutor(1) as executor:
        batch.run(executor)


def test_a_run_that_could_not_write_leaves_no_lease_to_others_in_a_process_that_lives_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "s.db"
    batch = Batch(scaled, sweep(x=range(10), by=[1]), name="scaled", store=store)

    def broken(self: object, entry: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched, pytest.raises(StoreError, match="disk is full"):
        patched.setattr("jobrunner.batch.ledger._Writer.record", broken)
        batch.run(InlineExecutor())
    with Store(store) as opened:
        assert opened.counts(opened.batch()).leased == 0
        assert [runner.ended_at is not None for runner in opened.runners(opened.batch())] == [True]


def test_rows_with_and_without_a_seed_have_the_same_columns(tmp_path: Path) -> None:
    store, file = tmp_path / "s.db", tmp_path / "out.csv"
    Batch(scaled, sweep(x=[1], by=[1]), name="mixed", store=store).run(InlineExecutor())
    batch = Batch(seeded, sweep(x=[1, 2]), name="mixed", store=store, seed=1)
    batch.run(InlineExecutor(), accept_changes=True)
    with contextlib.closing(connect(store, write=True)) as connection:
        connection.execute("UPDATE point SET seed = NULL WHERE place = 0")
    with Store(store) as opened:
        export(opened, opened.batch(), file)
    with file.open(newline="") as opened_file:
        rows = list(csv.reader(opened_file))
    assert len({len(row) for row in rows}) == 1
    assert [row[rows[0].index("status")] for row in rows[1:]] == ["done", "done"]


@pytest.fixture
def on_nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("storage.connection", "batch.registry"):
        monkeypatch.setattr(f"jobrunner.{module}.network_file_system", lambda path: "nfs4")


def _used_elsewhere(store: Path, seen_at: float) -> None:
    """Write a process of another machine into a store."""
    Batch(scaled, sweep(x=[1], by=[1]), name="scaled", store=store).run(InlineExecutor())
    with contextlib.closing(connect(store, write=True)) as connection:
        connection.execute(
            "INSERT INTO runner (batch, host, machine, pid, pid_started, workers, started_at, seen_at) "
            "VALUES (1, 'elsewhere', 'another boot', 1, '1', 2, ?, ?)",
            (seen_at, seen_at),
        )


def test_a_store_on_a_network_file_system_is_refused_while_another_machine_uses_it(
    tmp_path: Path, on_nfs: None
) -> None:
    store = tmp_path / "s.db"
    _used_elsewhere(store, time.time() - 10)
    batch = Batch(scaled, sweep(x=[1, 2], by=[1]), name="scaled", store=store)
    with pytest.raises(StoreError, match=r"in use on another machine, elsewhere \(pid 1\).*nfs4"):
        batch.run(InlineExecutor())
    assert not (tmp_path / "s.db-wal").exists()


@pytest.mark.parametrize("writes", [True, False], ids=["its clock is wrong", "it is no more"])
def test_another_machine_whose_last_sign_of_life_seems_old_is_watched_for_another(
    tmp_path: Path, on_nfs: None, monkeypatch: pytest.MonkeyPatch, writes: bool
) -> None:
    store = tmp_path / "s.db"
    _used_elsewhere(store, time.time() - 3600)
    batch = Batch(scaled, sweep(x=[1, 2], by=[1]), name="scaled", store=store)

    class Watch:
        def wait(self, timeout: float) -> None:
            if writes:
                with contextlib.closing(connect(store, write=True)) as connection:
                    connection.execute("UPDATE runner SET seen_at = seen_at + 1 WHERE host = 'elsewhere'")

    monkeypatch.setattr("jobrunner.batch.registry.threading", types.SimpleNamespace(Event=Watch))
    if writes:
        with pytest.raises(StoreError, match="in use on another machine"):
            batch.run(InlineExecutor())
    else:
        assert batch.run(InlineExecutor()).done == 1


def test_errors_name_what_a_program_can_do(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    Batch(scaled, sweep(x=[1]), fixed={"by": 1}, name="scaled", store=store).run(InlineExecutor())
    changed = Batch(scaled, sweep(x=[1]), fixed={"by": 2}, name="scaled", store=store)
    with pytest.raises(SpecError) as caught:
        changed.run(InlineExecutor())
    assert all(words in str(caught.value) for words in ("run(accept_changes=True)", "run(fresh=True)", "Batch(name="))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(
        SpecError, match=r"make the Batch of its function and points, in place of Batch\.stored"
    ) as anew:
        Batch.stored(store).run(InlineExecutor(), fresh=True)
    assert changed.run(InlineExecutor(), fresh=True, on_message=lambda message: None).done == 1
    with pytest.raises(SpecError, match=r"s\.db: name: it has several batches") as several:
        Batch.stored(store)
    assert not any("--" in str(error.value) for error in (caught, anew, several))

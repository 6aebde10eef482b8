"""`jobrunner results`: the results of a store as table, CSV and JSON, also where some can't be loaded."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobrunner.batch.store import Store
from jobrunner.cli.results import write_csv
from jobrunner.cli.stored_points import stored_points
from jobrunner.cli.stored_results import StoredResults
from tests.batch.stores import StoreBuilder
from tests.cli.store_commands import invoke, make_unsafe, store

__all__ = ["store"]


def csv_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


@pytest.fixture
def replicated(store: StoreBuilder) -> StoreBuilder:
    """Two points of three replicates; of the second one has failed and one is still to be run."""
    batch = store.batch(replicates=3, total=6)
    runner = store.runner(batch)
    for replicate, value in enumerate([1.0, 2.0, 3.0]):
        store.done(batch, runner, replicate, {"x": 1}, {"e": value, "model": "ising"}, replicate=replicate)
    store.done(batch, runner, 3, {"x": 2}, {"e": 5.0, "model": "ising"}, replicate=0)
    store.failed(batch, runner, 4, {"x": 2}, "E: no")
    store.point(batch, 5, {"x": 2}, replicate=2)
    return store


def test_the_table_has_what_is_done_and_says_what_is_not(store: StoreBuilder) -> None:
    batch = store.batch(total=4)
    runner = store.runner(batch)
    store.done(batch, runner, 0, {"x": 1}, {"e": -1.745612, "e_error": 0.00123})
    store.failed(batch, runner, 1, {"x": 2}, "E: no")
    store.point(batch, 2, {"x": 3})
    store.done(batch, runner, 3, {"x": 4}, {"e": 2.0})
    ran = invoke("results")
    assert ran.exit_code == 0
    assert words(ran.stdout) == [["x", "e"], ["1", "-1.7456(12)"], ["4", "2"]]
    assert "2 of 4 points done; 1 failed, 1 still to be run" in ran.stderr


def test_a_long_table_has_the_first_and_the_last_that_are_done(store: StoreBuilder) -> None:
    batch = store.batch(total=1000)
    store.many(batch, {"failed": 5, "done": 500, "pending": 495}, store.runner(batch))
    rows = words(invoke("results").stdout)
    assert [row[0] for row in rows[1:21]] == [str(x) for x in range(5, 25)]
    assert rows[21] == ["...", "..."]
    assert [row[0] for row in rows[22:42]] == [str(x) for x in range(485, 505)]
    assert rows[42] == [
        "460",
        "results",
        "in",
        "the",
        "middle",
        "are",
        "not",
        "shown;",
        "--format",
        "csv",
        "has",
        "all",
    ]


def test_a_long_table_of_replicates_has_whole_points(store: StoreBuilder) -> None:
    batch = store.batch(total=600, replicates=2)
    runner = store.runner(batch)
    for place in range(600):
        if place != 597:  # of the last but one point a replicate is missing
            store.done(batch, runner, place, {"x": place // 2}, place, replicate=place % 2)
    rows = words(invoke("results").stdout)
    assert rows[0] == ["x", "result_mean", "replicates"]
    assert [row[0] for row in rows[1:21]] == [str(x) for x in range(20)]
    assert [row[0] for row in rows[22:42]] == [str(x) for x in range(280, 300)]
    assert [row[-1] for row in rows[22:42]] == ["2"] * 18 + ["1", "2"]
    assert rows[42][0] == "260"


def test_csv_has_the_columns_of_all_points_and_all_results(store: StoreBuilder) -> None:
    batch = store.batch(parameters=["x", "seed"], total=3)
    runner = store.runner(batch)
    store.done(batch, runner, 0, {"x": 0.1, "seed": 7}, {"a": 1, "deep": {"b": True}})
    store.done(batch, runner, 1, {"x": 'quo"ted,\n', "seed": 8}, {"x": None, "late": [1, 2]})
    store.done(batch, runner, 2, {"x": 2, "seed": 9, "older": "fixed"}, (1, float("nan")))
    ran = invoke("results --format csv")
    assert ran.exit_code == 0, ran.stderr
    assert csv_rows(ran.stdout) == [
        {"x": "0.1", "seed": "7", "older": "", "a": "1", "deep.b": "true", "result.x": "", "late": "", "result": ""},
        {"x": 'quo"ted,\n', "seed": "8", "older": "", "a": "", "deep.b": "", "result.x": "", "late": "[1, 2]",
         "result": ""},
        {"x": "2", "seed": "9", "older": "fixed", "a": "", "deep.b": "", "result.x": "", "late": "",
         "result": '[1, "NaN"]'},
    ]  # fmt: skip
    assert ran.stderr == ""


def test_replicates_are_taken_together_or_shown_each(replicated: StoreBuilder) -> None:
    assert words(invoke("results").stdout) == [
        ["x", "e_mean", "model", "replicates"],
        ["1", "2.00(58)", "ising", "3"],
        ["2", "5", "ising", "1"],
    ]
    rows = csv_rows(invoke("results --format csv").stdout)
    assert [(row["x"], row["e_mean"], row["replicates"]) for row in rows] == [("1", "2.0", "3"), ("2", "5.0", "1")]
    assert float(rows[0]["e_sem"]) == pytest.approx(3**-0.5)
    each = csv_rows(invoke("results --format csv --replicates-each").stdout)
    assert [(row["x"], row["replicate"], row["seed"], row["e"]) for row in each] == [
        ("1", "0", "1000", "1.0"),
        ("1", "1", "1001", "2.0"),
        ("1", "2", "1002", "3.0"),
        ("2", "0", "1003", "5.0"),
    ]
    assert words(invoke("results --replicates-each").stdout)[0] == ["x", "replicate", "e", "model"]


def test_a_parameter_of_the_name_of_a_column_is_told_apart(store: StoreBuilder) -> None:
    batch = store.batch(parameters=["seed"], replicates=2, total=2)
    store.done(batch, store.runner(batch), 0, {"seed": 5}, {"replicate": 6})
    (row,) = csv_rows(invoke("results --format csv --replicates-each").stdout)
    assert row == {"parameter.seed": "5", "replicate": "0", "seed": "1000", "result.replicate": "6"}


def test_the_mean_of_replicates_of_which_one_is_nan_is_nan_in_the_columns_of_the_others(store: StoreBuilder) -> None:
    batch = store.batch(replicates=2, total=4)
    runner = store.runner(batch)
    for place, value in enumerate([1.0, 1.0, 1.0, float("nan")]):
        store.done(batch, runner, place, {"x": place // 2}, value, replicate=place % 2)
    assert csv_rows(invoke("results --format csv").stdout) == [
        {"x": "0", "result_mean": "1.0", "result_sem": "0.0", "replicates": "2"},
        {"x": "1", "result_mean": "NaN", "result_sem": "NaN", "replicates": "2"},
    ]
    each = csv_rows(invoke("results --format csv --replicates-each").stdout)
    assert [row["result"] for row in each] == ["1.0", "1.0", "1.0", "NaN"]
    assert json.loads(invoke("results --format json").stdout)[1]["value"] == {
        "result_mean": "NaN",
        "result_sem": "NaN",
        "replicates": 2,
    }
    assert words(invoke("results").stdout)[2][:2] == ["1", "NaN"]


def test_json_is_one_array_of_parameters_and_values(replicated: StoreBuilder) -> None:
    together = json.loads(invoke("results --json").stdout)
    assert [item["parameters"] for item in together] == [{"x": 1}, {"x": 2}]
    assert together[0]["value"]["e_mean"] == 2.0
    each = json.loads(invoke("results --format json --replicates-each").stdout)
    assert each[1] == {
        "parameters": {"x": 1},
        "value": {"e": 2.0, "model": "ising"},
        "point": 1,
        "replicate": 1,
        "seed": 1001,
    }
    assert invoke("results --json --format csv").exit_code == 2


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_nothing_done_is_nothing_printed_and_a_note(store: StoreBuilder, form: str) -> None:
    batch = store.batch(total=1)
    store.point(batch, 0, {"x": 1})
    ran = invoke(f"results --format {form}")
    assert ran.exit_code == 0
    assert ran.stdout == {"table": "", "csv": "x\n", "json": "[]\n"}[form]
    assert "0 of 1 point done; 1 still to be run" in ran.stderr


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_pickles_that_another_user_could_have_written_are_withheld_with_one_note(
    store: StoreBuilder, form: str
) -> None:
    batch = store.batch(total=3)
    runner = store.runner(batch)
    store.done(batch, runner, 0, {"x": 1}, (1, 2))
    store.done(batch, runner, 1, {"x": 2}, 5)
    store.done(batch, runner, 2, {"x": 3}, (3, 4))
    make_unsafe(store.path)
    ran = invoke(f"results --format {form}")
    assert ran.exit_code == 0
    assert ran.stdout.count("<withheld>") == 2
    assert "5" in ran.stdout
    assert ran.stderr.count("withheld") == 1
    assert "2 results withheld: others may write" in ran.stderr


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_a_result_that_can_not_be_loaded_does_not_hide_the_others(store: StoreBuilder, form: str) -> None:
    batch = store.batch(total=3)
    runner = store.runner(batch)
    store.done(batch, runner, 0, {"x": 1}, 1, format="pickle", result=b"cno_such_module\nthing\n.")
    store.done(batch, runner, 1, {"x": 2}, 12345)
    store.done(batch, runner, 2, {"x": 3}, 1, format="json", result="{broken")
    ran = invoke(f"results --format {form}")
    assert ran.exit_code == 3
    assert ran.stdout.count("<unreadable>") == 2
    assert "12345" in ran.stdout
    assert "2 results can't be loaded; point 0: " in ran.stderr
    assert "no_such_module" in ran.stderr


def test_the_mean_of_a_point_of_which_a_replicate_is_withheld_is_not_shown(store: StoreBuilder) -> None:
    batch = store.batch(total=3, replicates=3)
    runner = store.runner(batch)
    for replicate, value in enumerate([3.5, float("nan"), 4.5]):
        store.done(batch, runner, replicate, {"x": 1}, value, replicate=replicate)
    make_unsafe(store.path)
    assert [row["result"] for row in csv_rows(invoke("results --format csv").stdout)] == ["<withheld>"]


# --- into a file ---


def test_output_is_a_new_file_of_its_owner_alone_in_the_format_of_its_name(replicated: StoreBuilder) -> None:
    path = replicated.path.with_name("out.csv")
    ran = invoke("results --output out.csv")
    assert (ran.exit_code, ran.stdout) == (0, "")
    assert [row["x"] for row in csv_rows(path.read_text())] == ["1", "2"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    assert invoke("results --output out.csv --format json").exit_code == 0
    assert len(json.loads(path.read_text())) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_output_through_a_link_leaves_the_link(replicated: StoreBuilder) -> None:
    link = replicated.path.with_name("link.csv")
    link.symlink_to("real.csv")
    assert invoke("results --output link.csv").exit_code == 0
    assert link.is_symlink()
    assert csv_rows(link.with_name("real.csv").read_text())


def test_what_was_in_the_file_stays_if_the_writing_fails(
    replicated: StoreBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = replicated.path.with_name("out.csv")
    path.write_text("before")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    ran = invoke("results --output out.csv")
    assert ran.exit_code == 3
    assert "out.csv: the output file can't be written: No space left on device" in ran.stderr
    assert path.read_text() == "before"
    assert sorted(each.name for each in path.parent.glob("*out*")) == ["out.csv"]


def test_the_store_is_not_overwritten(replicated: StoreBuilder) -> None:
    for name in ("jobrunner.db", "jobrunner.db-wal"):
        before = replicated.path.with_name(name).read_bytes()
        ran = invoke(f"results --format csv --output {name}")
        assert ran.exit_code == 2
        assert "is the store itself" in ran.stderr
        assert replicated.path.with_name(name).read_bytes() == before


def test_an_unwritable_output_exits_with_3(replicated: StoreBuilder) -> None:
    ran = invoke("results --output none/out.csv")
    assert ran.exit_code == 3
    assert "none/out.csv: the output file can't be written: No such file or directory" in ran.stderr


# --- while others write ---


class _Sink(io.StringIO):
    """Takes what is written, and calls back at each line."""

    def __init__(self, on_line: Iterator[None]) -> None:
        super().__init__()
        self._on_line = on_line

    def write(self, text: str) -> int:
        next(self._on_line, None)
        return super().write(text)


def test_what_ends_between_the_passes_breaks_no_row_and_no_reader_keeps_a_transaction(store: StoreBuilder) -> None:
    batch = store.batch(total=50)
    runner = store.runner(batch)
    for place in range(40):
        store.done(batch, runner, place, {"x": place}, {"a": place})

    def meanwhile() -> Iterator[None]:
        store.done(batch, runner, 45, {"x": 45}, {"new": 1})
        for _ in range(30):
            yield
        # A checkpoint is whole only if no reader stands in its way.
        busy, _, _ = store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert busy == 0

    with Store(store.path) as opened:
        record = opened.batch()
        file = _Sink(meanwhile())
        write_csv(StoredResults(opened, record), record, file)
    assert [row["a"] for row in csv_rows(file.getvalue())] == [str(place) for place in range(40)]
    assert "new" in csv_rows(invoke("results --format csv").stdout)[0]


def test_a_part_of_the_points_is_found_in_the_index_without_reading_the_others(store: StoreBuilder) -> None:
    batch = store.batch(total=50)
    store.many(batch, {"done": 50}, store.runner(batch))
    asked: list[str] = []
    with Store(store.path) as opened:
        opened.connection.set_trace_callback(asked.append)
        assert sum(1 for _ in stored_points(opened, opened.batch(), "done", results=True)) == 50
    plans = [
        store.connection.execute(f"EXPLAIN QUERY PLAN {query}").fetchone()[3] for query in asked if "point p" in query
    ]
    terms = [plan.partition("USING INDEX point_by_status ")[2] for plan in plans]
    assert set(terms) == {"(batch=? AND status=? AND place>?)", "(batch=? AND status=? AND place=?)"}
    assert terms.count("(batch=? AND status=? AND place>?)") == 2  # all places in one query; a second finds no more


@pytest.mark.slow
def test_many_results_are_streamed(store: StoreBuilder) -> None:
    """20,000 results of 2 kB each, 40 MB, in less memory than a tenth of that."""
    batch = store.batch(total=20_000)
    store.many(batch, {"done": 20_000}, store.runner(batch))
    store.connection.execute("UPDATE outcome SET result = '\"' || printf('%.2000c', 'x') || '\"'")
    with open(Path(os.devnull), "w") as file, Store(store.path) as opened:
        record = opened.batch()
        tracemalloc.start()
        try:
            write_csv(StoredResults(opened, record), record, file)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 4_000_000

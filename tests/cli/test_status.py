"""`jobrunner status`: how far a batch is, who runs it, and how long it will take."""

from __future__ import annotations

import json
import os
import pty
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jobrunner.batch.store import Store
from jobrunner.cli.snapshot import Snapshot, take_snapshot
from jobrunner.cli.status import lines
from jobrunner.storage.owners import Owner, this_process
from tests.batch.stores import BEGUN, StoreBuilder, gone
from tests.cli.store_commands import invoke, store
from tests.command_line import ROOT

__all__ = ["store"]


def activity(**other: Any) -> str:
    running = [{"place": 7, "pid": 99, "since": time.time() - 95, "parameters": {"x": 7, "fixed": 1}}]
    return json.dumps(
        {"rate": 4.0, "running": running, "workers": [{"pid": 99, "rss_bytes": 3 << 20}], "rss_bytes": 1 << 30, **other}
    )


def snapshot(store: StoreBuilder) -> Snapshot:
    with Store(store.path) as opened:
        return take_snapshot(opened, None)


def test_it_shows_counts_pace_processes_and_what_each_worker_runs(store: StoreBuilder) -> None:
    batch = store.batch(total=20, parameters=["x", "fixed"], varying='["x"]', seed="5", seed_drawn=1)
    runner = store.runner(batch, activity=activity(), seen_at=time.time())
    store.many(batch, {"done": 5, "failed": 2, "leased": 3, "pending": 10}, runner)
    store.connection.execute("UPDATE outcome SET run_s = 10")
    store.insert("note", batch=batch, at=BEGUN, kind="warning", text="numpy is 2.0, and was 1.9")
    shown = invoke("status").stdout
    assert "5 done of 20, 2 failed, 13 left" in shown
    assert "25 %" in shown
    assert "run by 1 process, 4.0/s, ETA 1 min 05 s" in shown  # 13 jobs of 10 s for 2 workers
    assert "5, drawn" in shown
    rows = [line.split() for line in shown.splitlines()]
    (process,) = [row for row in rows if row[:1] == [this_process().host]]
    assert process[1:6] == [str(os.getpid()), "2", "1", "GiB", "running"]
    (job,) = [row for row in rows if row[:1] == ["99"]]
    assert job[:5] == ["99", "3", "MiB", "1", "min"]
    assert job[-2:] == ["7", "x=7"]  # and not the parameter that is always the same
    assert "warning: numpy is 2.0, and was 1.9" in shown


def test_it_says_that_what_was_killed_is_not_running(store: StoreBuilder) -> None:
    batch = store.batch(total=3)
    store.runner(batch, ended_at=BEGUN + 5)
    killed = store.runner(batch, gone(), activity=activity())
    store.many(batch, {"leased": 3}, killed)
    shown = invoke("status").stdout
    assert "nobody runs it" in shown
    assert "killed" in shown
    assert "ended" not in shown
    assert "99" not in shown.split()  # what it ran when it was killed
    document = json.loads(invoke("status --json").stdout)
    assert [runner["state"] for runner in document["runners"]] == ["ended", "killed"]
    assert (document["running"], document["final"], document["eta_s"]) == (False, False, None)


@pytest.mark.parametrize(("ago", "state"), [(1.0, "running"), (1000.0, "silent")])
def test_a_process_of_another_machine_runs_as_long_as_it_is_heard_of(
    store: StoreBuilder, ago: float, state: str
) -> None:
    batch = store.batch(total=1)
    store.runner(batch, Owner("elsewhere", "another boot", 1, "1"), seen_at=time.time() - ago)
    store.point(batch, 0, {"x": 1})
    document = json.loads(invoke("status --json").stdout)
    assert [(runner["host"], runner["state"]) for runner in document["runners"]] == [("elsewhere", state)]
    assert document["running"] is (state == "running")


def test_json_is_one_document(store: StoreBuilder) -> None:
    batch = store.batch(total=10, seed="5")
    runner = store.runner(batch, activity=activity(), stop_requested=1)
    store.many(batch, {"done": 4, "leased": 1, "pending": 4, "cancelled": 1}, runner)
    store.point(batch, None, {"x": "old"}, "done")
    document = json.loads(invoke("status --json").stdout)
    assert document["counts"] == {"pending": 4, "leased": 1, "done": 4, "failed": 0, "cancelled": 1}
    assert (document["total"], document["removed"], document["share_done"]) == (10, 1, 0.4)
    assert (document["name"], document["target"], document["seed"]) == ("squares", "functions:square", 5)
    assert (document["running"], document["rate"], document["eta_s"]) == (True, 4.0, 5 / 4.0)
    (found,) = document["runners"]
    assert (found["pid"], found["workers"], found["state"]) == (os.getpid(), 2, "stopping")
    assert found["activity"]["running"][0]["place"] == 7


@pytest.mark.parametrize(
    ("lengths", "rate", "left", "eta"),
    [
        ([], 0.0, 10, None),  # nothing is known yet
        ([], 2.0, 10, 5.0),
        ([3600.0, 1800.0], 0.001, 10, 10 * 2700.0 / 2),  # of long jobs the rate says nothing
        ([3600.0], 0.0, 1, 3600.0),  # the last one is not run by two
        ([0.001], 50.0, 1000, 20.0),  # of tiny ones the length says nothing
    ],
)
def test_the_time_left_comes_from_the_length_of_jobs(
    store: StoreBuilder, lengths: list[float], rate: float, left: int, eta: float | None
) -> None:
    batch = store.batch()
    earlier = store.runner(batch, ended_at=BEGUN)
    store.outcome(store.point(batch, None, {}, "done"), earlier, "done", run_s=1e9)
    runner = store.runner(batch, activity=activity(rate=rate))
    for place, run_s in enumerate(lengths):
        store.done(batch, runner, left + place, {"x": place}, 1, run_s=run_s)
    for place in range(left):
        store.point(batch, place, {"x": place})
    assert snapshot(store).eta_s == (None if eta is None else pytest.approx(eta))


def test_all_run_is_said_so(store: StoreBuilder) -> None:
    batch = store.batch(total=2)
    store.many(batch, {"done": 2}, store.runner(batch, ended_at=BEGUN))
    assert "all run" in invoke("status").stdout


# --- --watch ---


class Clock:
    """Time that passes when somebody waits; then what is planned for that second happens."""

    def __init__(self, plan: dict[int, Any]) -> None:
        self.now = 0.0
        self.plan = plan

    def wait(self, seconds: float) -> None:
        self.now += seconds
        event = self.plan.get(round(self.now))
        if event is not None:
            event()
        assert self.now < 100, "it watches for ever"

    def __call__(self) -> float:
        return self.now


def test_where_nobody_looks_a_change_is_a_line_and_there_are_few(store: StoreBuilder) -> None:
    batch = store.batch("b", total=4)
    runner = store.runner(batch)
    store.many(batch, {"leased": 4}, runner)

    def end(place: int) -> Any:
        return lambda: store.connection.execute("UPDATE point SET status = 'done' WHERE place = ?", (place,))

    clock = Clock({1: end(0), 2: end(1), 30: end(2), 31: end(3)})
    shown = list(lines(snapshot(store), lambda: snapshot(store), wait=clock.wait, clock=clock))
    assert [line.partition(", ")[0] for line in shown] == [
        "b: 0 done of 4",
        "b: 2 done of 4",  # at 5 s, both
        "b: 3 done of 4",  # at 30 s
        "b: 4 done of 4",  # at once, being the last
    ]
    assert clock.now == 31


def test_watching_ends_when_nobody_runs_it(store: StoreBuilder) -> None:
    batch = store.batch("b", total=1)
    runner = store.runner(batch)
    store.point(batch, 0, {"x": 1})

    def leave() -> None:
        store.connection.execute("UPDATE runner SET ended_at = 1 WHERE id = ?", (runner,))

    clock = Clock({3: leave})
    shown = list(lines(snapshot(store), lambda: snapshot(store), wait=clock.wait, clock=clock))
    assert len(shown) == 2
    assert "nobody runs it" in shown[-1]


def test_watching_what_nobody_runs_ends_at_once(store: StoreBuilder) -> None:
    batch = store.batch("b", total=1)
    store.point(batch, 0, {"x": 1})
    ran = invoke("status --watch")
    assert (ran.exit_code, len(ran.stdout.splitlines())) == (0, 1)
    assert invoke("status --watch --json").exit_code == 2


def test_on_a_terminal_it_is_shown_live_until_the_batch_is_run(store: StoreBuilder) -> None:
    batch = store.batch("b", total=1)
    runner = store.runner(batch, activity=activity())
    store.many(batch, {"leased": 1}, runner)
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobrunner", "status", "--watch"],
            cwd=store.path.parent,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
            stdout=theirs,
            stderr=subprocess.PIPE,
        )
        os.close(theirs)
        shown = b""
        while b"0 done of 1" not in shown:
            shown += os.read(ours, 65536)
        store.connection.execute("UPDATE point SET status = 'done'")
        try:
            while chunk := os.read(ours, 65536):
                shown += chunk
        except OSError:  # the other end is closed
            pass
        _, stderr = process.communicate(timeout=100)
    finally:
        os.close(ours)
    assert process.returncode == 0, stderr
    assert b"x=7" in shown
    assert shown.rfind(b"1 done of 1") > shown.rfind(b"0 done of 1")


# --- many points ---


def _queries(store: StoreBuilder, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The queries that `jobrunner status` makes."""
    asked: list[str] = []
    rows = Store.rows

    def traced(self: Store, query: str, *values: Any) -> list[Any]:
        self.connection.set_trace_callback(asked.append)
        return rows(self, query, *values)

    monkeypatch.setattr(Store, "rows", traced)
    assert invoke("status").exit_code == 0
    return asked


def _plan(connection: sqlite3.Connection, query: str) -> str:
    return "\n".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}"))


def test_it_reads_points_out_of_an_index_alone_and_of_outcomes_the_last(
    store: StoreBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = store.batch()
    store.many(batch, {"done": 50}, store.runner(batch))
    plans = {query: _plan(store.connection, query) for query in _queries(store, monkeypatch)}
    about_points = [plan for query, plan in plans.items() if "FROM point" in query]
    assert len(about_points) == 2
    for plan in about_points:
        assert "USING COVERING INDEX point_by_status (batch=?" in plan
        assert "TEMP B-TREE" not in plan
    about_outcomes = [(query, plan) for query, plan in plans.items() if "FROM outcome" in query]
    assert len(about_outcomes) == 1
    assert "LIMIT 200" in about_outcomes[0][0]
    assert "TEMP B-TREE" not in about_outcomes[0][1]


@pytest.mark.soak
def test_a_million_points_are_told_in_one_page(store: StoreBuilder) -> None:
    batch = store.batch(total=1_000_000)
    runner = store.runner(batch, activity=activity())
    store.many(batch, {"done": 400_000, "failed": 10, "leased": 4000, "pending": 595_990}, runner)
    begun = time.perf_counter()
    shown = invoke("status").stdout
    print(f"status of 1,000,000 points: {time.perf_counter() - begun:.3f} s")
    assert "400,000 done of 1,000,000, 10 failed, 599,990 left" in shown
    assert len(shown.splitlines()) < 20


def test_the_store_is_left_as_it_was(store: StoreBuilder) -> None:
    """Looking must not write: a reader may lack the right to, and the batch is being run."""
    batch = store.batch(total=1)
    store.done(batch, store.runner(batch), 0, {"x": 1}, 1)
    before = store.connection.execute("PRAGMA data_version").fetchone()
    for command in ("status", "list", "results", "failures", "logs"):
        assert invoke(command).exit_code == 0
    assert store.connection.execute("PRAGMA data_version").fetchone() == before
    assert Path(store.path).stat().st_mode & 0o077 == 0

"""A batch that is run again: what changed runs, what is done stays, what makes it another batch is refused."""

from __future__ import annotations

import os
import signal
import sys
import types
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jobrunner import Batch, InlineExecutor, LocalExecutor, SpecError, StoreError, sweep
from jobrunner.batch import Outcome, OutcomeStatus, identity
from jobrunner.batch.ledger import request_cancel
from jobrunner.batch.outcomes import Summary
from jobrunner.batch.registry import Resumption
from jobrunner.batch.store import Store
from jobrunner.storage.connection import connect
from tests.batch.survival_batch import query
from tests.command_line import CommandLine, command_line, meeting

__all__ = ["command_line", "meeting"]

SOURCE = """\
import os


def called(x):
    with open(os.path.join(os.environ["CHANGING"], "calls"), "a") as file:
        file.write(f"{x}\\n")


def scaled(x, factor=1):
    called(x)
    if os.path.exists(os.path.join(os.environ["CHANGING"], f"failing{x}")):
        raise ValueError(f"{x} fails")
    return x * factor


def drawn(x, seed):
    called(x)
    return seed


def other():
    pass
"""


class Module:
    """A file of functions that is changed between runs, and runs them in this process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "changing.py"
        self.store = directory / "jobrunner.db"
        self.failing: set[int] = set()
        self.messages: list[str] = []
        self.calls: list[int] = []
        self.write(SOURCE)

    def write(self, source: str) -> None:
        self.file.write_text(source)

    def replace(self, old: str, new: str) -> None:
        source = self.file.read_text()
        assert old in source
        self.write(source.replace(old, new))

    def batch(self, function: str = "scaled", xs: int | list[int] = 4, **options: Any) -> Batch:
        numbers = list(range(xs)) if isinstance(xs, int) else xs
        options = {"name": "b", "store": self.store, "directory": self.directory, **options}
        return Batch(f"changing.py:{function}", options.pop("points", None) or sweep(x=numbers), **options)

    def run(self, batch: Batch, **how: Any) -> Summary:
        for file in self.directory.glob("failing*"):
            file.unlink()
        for x in self.failing:
            (self.directory / f"failing{x}").touch()
        calls = self.directory / "calls"
        calls.write_text("")
        self.messages = []
        try:
            return batch.run(InlineExecutor(), on_message=self.messages.append, **how)
        finally:
            self.calls = sorted(int(line) for line in calls.read_text().split())

    def statuses(self) -> list[tuple[int, str]]:
        with Store(self.store) as store:
            return [(point.parameters["x"], point.status) for point in store.points(store.batch("b"))]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    monkeypatch.setenv("CHANGING", str(tmp_path))
    # Its name is another module's, so that the file is loaded by each batch anew, as by a new process.
    monkeypatch.setitem(sys.modules, "changing", types.ModuleType("changing"))
    return Module(tmp_path)


# --- points ---


def test_growing_runs_only_what_is_new_and_shrinking_hides(module: Module) -> None:
    module.run(module.batch(xs=4))
    assert module.calls == [0, 1, 2, 3]
    summary = module.run(module.batch(xs=[7, 2, 0, 1, 3, 8]))
    assert module.calls == [7, 8]
    assert (summary.total, summary.done, summary.skipped) == (6, 2, 4)
    assert [point["x"] for point, _ in module.batch().results()] == [7, 2, 0, 1, 3, 8]
    summary = module.run(module.batch(xs=[8, 1]))
    assert (summary.total, summary.done, summary.skipped, module.calls) == (2, 0, 2, [])
    assert module.statuses() == [(8, "done"), (1, "done")]
    with Store(module.store) as store:
        assert store.removed(store.batch("b")) == 4
    # What was hidden comes back with its result.
    summary = module.run(module.batch(xs=9))
    assert (module.calls, summary.skipped) == ([4, 5, 6], 6)
    assert query(module.store, "SELECT count(*) FROM outcome") == [(9,)]


def test_swapping_one_point_for_another_keeps_the_order(module: Module) -> None:
    module.run(module.batch(xs=[0, 1, 2]))
    module.run(module.batch(xs=[5, 2, 0]))
    assert module.calls == [5]
    assert module.statuses() == [(5, "done"), (2, "done"), (0, "done")]


def test_more_replicates_keep_what_there_is(module: Module) -> None:
    module.run(module.batch("drawn", replicates=2, seed=5))
    before = {(p.parameters["x"], p.replicate): p.seed for p in module.batch("drawn").outcomes()}
    summary = module.run(module.batch("drawn", replicates=4, seed=5))
    assert (summary.total, summary.done, summary.skipped) == (16, 8, 8)
    assert module.calls == [0, 0, 1, 1, 2, 2, 3, 3]
    after = {(p.parameters["x"], p.replicate): p.seed for p in module.batch("drawn").outcomes()}
    assert before.items() <= after.items()
    assert len(set(after.values())) == 16
    summary = module.run(module.batch("drawn", replicates=1, seed=5))
    assert (summary.total, summary.skipped, module.calls) == (4, 4, [])


def test_a_swept_parameter_that_becomes_fixed_keeps_each_points_own_result(module: Module) -> None:
    module.run(module.batch(points=sweep(x=[1, 2], factor=[10, 20])))
    module.run(module.batch(xs=[1, 2], fixed={"factor": 10}))
    assert module.calls == []
    assert list(module.batch().results()) == [({"factor": 10, "x": 1}, 10), ({"factor": 10, "x": 2}, 20)]


def test_a_fixed_parameter_that_becomes_swept_keeps_what_is_done(module: Module) -> None:
    module.run(module.batch(xs=[1, 2], fixed={"factor": 10}))
    module.run(module.batch(points=sweep(x=[1, 2], factor=[10, 20])))
    assert module.calls == [1, 2]
    assert [value for _, value in module.batch().results()] == [10, 20, 20, 40]


# --- failures ---


def test_failed_points_run_again_only_when_asked_for(module: Module) -> None:
    module.failing = {1, 2}
    summary = module.run(module.batch())
    assert (summary.done, summary.failed) == (2, 2)
    module.failing = set()
    summary = module.run(module.batch())
    assert (summary.done, summary.failed, summary.skipped, module.calls) == (0, 2, 2, [])
    summary = module.run(module.batch(), retry_failed=True)
    assert (summary.done, summary.failed, summary.skipped, module.calls) == (2, 0, 2, [1, 2])
    found = query(module.store, "SELECT place, attempts FROM point ORDER BY place")
    assert found == [(0, 1), (1, 2), (2, 2), (3, 1)]
    outcomes = query(module.store, "SELECT status, count(*) FROM outcome GROUP BY status ORDER BY status")
    assert outcomes == [("done", 4), ("failed", 2)]


def test_a_run_stops_after_so_many_failures_and_the_rest_runs_with_the_next(module: Module) -> None:
    module.failing = {0, 2, 3}
    summary = module.run(module.batch(xs=60, max_failures=2))
    assert summary.failed >= 2
    assert summary.stopped == "2 points have failed"
    assert summary.cancelled > 0
    assert summary.done + summary.failed + summary.cancelled == 60
    module.failing = {3}
    # Failures of an earlier run don't count.
    summary = module.run(module.batch(xs=60, max_failures=2), retry_failed=True)
    assert (summary.failed, summary.stopped) == (1, None)
    assert summary.done + summary.skipped == 59


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def fails_oddly(x: int) -> None:
    if x:
        raise UnprintableError
    raise ValueError("no such file: \udcff")


def test_a_failure_without_a_text_or_an_encoding_is_one_points_failure(tmp_path: Path) -> None:
    batch = Batch(fails_oddly, sweep(x=[0, 1]), name="odd", store=tmp_path / "jobrunner.db")
    assert batch.run(InlineExecutor()).failed == 2
    first, second = (str(point.error) for point in batch.outcomes())
    assert first == "ValueError: no such file: \\udcff"
    assert second.startswith("UnprintableError")


def dies_at_first(x: int, directory: str) -> int:
    if x == 2 and len(os.listdir(directory)) < 2:
        Path(directory, f"died{os.getpid()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def test_a_point_whose_worker_died_is_run_again_and_each_attempt_is_recorded(tmp_path: Path) -> None:
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    outcomes: list[Outcome] = []
    batch = Batch(
        dies_at_first,
        sweep(x=[1, 2, 3]),
        name="deaths",
        store=tmp_path / "jobrunner.db",
        fixed={"directory": str(deaths)},
        retries=2,
    )
    with LocalExecutor(max_workers=2) as executor:
        summary = batch.run(executor, on_outcome=outcomes.append)
    assert (summary.done, summary.failed) == (3, 0)
    assert query(batch.store, "SELECT place, status, attempts FROM point ORDER BY place") == [
        (0, "done", 1),
        (1, "done", 3),
        (2, "done", 1),
    ]
    found = query(batch.store, "SELECT o.status FROM outcome o JOIN point p ON p.id = o.point WHERE p.place = 1")
    assert [status for (status,) in found] == ["retried", "retried", "done"]
    assert query(batch.store, "SELECT count(*) FROM outcome WHERE status = 'retried' AND error LIKE '%SIGKILL%'") == [
        (2,)
    ]
    assert [outcome.status for outcome in outcomes].count(OutcomeStatus.RETRIED) == 2


def test_a_point_whose_workers_die_more_often_has_failed(tmp_path: Path) -> None:
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    batch = Batch(
        dies_at_first,
        sweep(x=[1, 2]),
        name="deaths",
        store=tmp_path / "jobrunner.db",
        fixed={"directory": str(deaths)},
        retries=1,
    )
    with LocalExecutor(max_workers=2) as executor:
        assert batch.run(executor).failed == 1
        assert query(batch.store, "SELECT status, attempts FROM point WHERE place = 1") == [("failed", 2)]
        assert batch.run(executor, retry_failed=True).done == 1
    assert query(batch.store, "SELECT status, attempts FROM point WHERE place = 1") == [("done", 3)]


# --- changes ---


def change_source(module: Module) -> Mapping[str, Any]:
    module.replace("return x * factor", "return x * factor + 1000")
    return {}


def change_fixed(module: Module) -> Mapping[str, Any]:
    return {"fixed": {"factor": 3}}


def change_seed(module: Module) -> Mapping[str, Any]:
    return {"seed": 2}


CHANGES: dict[str, tuple[str, Mapping[str, Any], Callable[[Module], Mapping[str, Any]], str]] = {
    "source": ("scaled", {}, change_source, r"the source of scaled\(\) has changed"),
    "fixed": ("scaled", {"fixed": {"factor": 2}}, change_fixed, "fixed parameter factor is 3, and was 2"),
    "seed": ("drawn", {"seed": 1}, change_seed, "the seed is 2, and was 1"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_makes_another_batch_is_refused_accepted_or_begun_anew(module: Module, change: str) -> None:
    function, options, make, message = CHANGES[change]
    module.run(module.batch(function, xs=3, **options))
    before = {point["x"]: value for point, value in module.batch(function).results()}
    options = {**options, **make(module)}
    untouched = query(module.store, "SELECT * FROM batch"), query(module.store, "SELECT * FROM point")
    with pytest.raises(SpecError, match=message):
        module.run(module.batch(function, xs=5, **options))
    assert (query(module.store, "SELECT * FROM batch"), query(module.store, "SELECT * FROM point")) == untouched
    assert module.calls == []
    summary = module.run(module.batch(function, xs=5, **options), accept_changes=True)
    assert (summary.done, summary.skipped, module.calls) == (2, 3, [3, 4])
    after = {point["x"]: value for point, value in module.batch(function).results()}
    assert before.items() <= after.items()
    with Store(module.store) as store:
        assert [note.kind for note in store.notes(store.batch("b")) if note.kind == "accepted"] == ["accepted"]
    # What was accepted is the batch from now on.
    summary = module.run(module.batch(function, xs=5, **options))
    assert (summary.skipped, module.calls) == (5, [])
    summary = module.run(module.batch(function, xs=5, **options), fresh=True)
    assert (summary.done, module.calls) == (5, [0, 1, 2, 3, 4])
    assert module.messages == ["begun anew; what there was is now batch 'b~1'"]
    with Store(module.store) as store:
        assert [batch.name for batch in store.batches()] == ["b~1", "b"]
        assert store.counts(store.batch("b~1")).done == 5
    anew = {point["x"]: value for point, value in module.batch(function).results()}
    assert (anew[4], anew[1]) != (after[4], after[1])
    assert anew[4] == after[4]


def test_changes_are_not_accepted_while_another_run_goes_on(module: Module) -> None:
    batch = module.batch(xs=3, fixed={"factor": 2})
    registration = batch._register(Resumption(), 1, lambda written, total: None)
    assert registration.runner
    with pytest.raises(StoreError, match="is being run by another process"):
        module.run(module.batch(xs=3, fixed={"factor": 3}), accept_changes=True)
    assert query(module.store, "SELECT count(*) FROM runner") == [(1,)]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    return x * factor", "    # a comment\n    return x * factor"),
        ("def other():\n    pass", "def other():\n    return 1"),
        ("return x * factor", "return (x *\n            factor)"),
    ],
    ids=["comment", "other function", "layout"],
)
def test_a_change_beside_the_function_is_one_warning(module: Module, old: str, new: str) -> None:
    module.run(module.batch())
    module.replace(old, new)
    summary = module.run(module.batch())
    assert (summary.skipped, module.calls) == (4, [])
    assert module.messages == ["since batch 'b' was last run, other code in changing.py has changed"]
    module.run(module.batch())
    assert module.messages == []


def test_another_version_of_a_package_is_one_warning(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_packages", lambda: {"numpy": "1.0", "same": "3"})
    module.run(module.batch())
    monkeypatch.setattr(identity, "_packages", lambda: {"numpy": "2.0", "same": "3", "more": "1"})
    module.run(module.batch())
    assert module.messages == ["since batch 'b' was last run, numpy is 2.0, and was 1.0"]
    with Store(module.store) as store:
        assert [(note.kind, note.text) for note in store.notes(store.batch("b"))] == [
            ("warning", "numpy is 2.0, and was 1.0")
        ]
    module.run(module.batch())
    assert module.messages == []


def test_another_seed_drawn_changes_nothing(module: Module) -> None:
    module.run(module.batch("drawn", xs=2))
    seed = module.batch("drawn").record().seed
    module.run(module.batch("drawn", xs=4))
    assert module.calls == [2, 3]
    assert module.batch("drawn").record().seed == seed


# --- cancelling from another process ---


def cancel(store: Path, places: list[int] | None = None) -> int:
    with closing(connect(store, write=True)) as connection, Store(store) as opened:
        return request_cancel(connection, store, opened.batch().id, places)


MEETS = ["functions.py:meets", "-p", "x=1,2,3", "--workers", "2", "--progress", "none"]


def test_a_whole_batch_is_cancelled_from_another_process(
    command_line: CommandLine, meeting: Callable[[int], list[int]]
) -> None:
    store = command_line.directory / "jobrunner.db"
    process = command_line.start("run", *MEETS, "-p", f"fifo={command_line.directory / 'fifo'}")
    meeting(2)
    assert cancel(store) == 3
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stderr
    assert "cancelled by another process" in stderr
    assert query(store, "SELECT status, count(*) FROM point GROUP BY status") == [("cancelled", 3)]
    assert query(store, "SELECT count(*) FROM outcome") == [(0,)]


def test_single_points_are_cancelled_from_another_process_and_the_others_go_on(
    command_line: CommandLine, meeting: Callable[[int], list[int]]
) -> None:
    store = command_line.directory / "jobrunner.db"
    # x = 0 ends, 1 and 2 stay until they are cancelled; 3 waits for a worker, and is cancelled too.
    process = command_line.start(
        "run", *MEETS[:2], "x=1,2,3,0", *MEETS[3:], "-p", f"fifo={command_line.directory / 'fifo'}"
    )
    meeting(2)
    assert cancel(store, [0, 2]) == 2
    meeting(1)  # 0 has a worker now
    while query(store, "SELECT status FROM point WHERE place = 3") != [("done",)]:
        assert process.poll() is None
    assert cancel(store, [1]) == 1
    assert cancel(store, [1]) == 0
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stderr
    assert query(store, "SELECT status FROM point ORDER BY place") == [
        ("cancelled",),
        ("cancelled",),
        ("cancelled",),
        ("done",),
    ]


def test_a_batch_taken_up_from_its_store_alone_is_refused_as_well_when_its_source_has_changed(module: Module) -> None:
    module.failing = {1}
    module.run(module.batch(xs=3))
    module.failing = set()
    change_source(module)
    stored = Batch.stored(module.store)
    with pytest.raises(SpecError, match=r"the source of scaled\(\) has changed"):
        module.run(stored, retry_failed=True)
    assert module.calls == []
    with pytest.raises(SpecError, match="needs its description"):
        module.run(stored, fresh=True)
    summary = module.run(stored, retry_failed=True, accept_changes=True)
    assert (summary.done, summary.skipped, module.calls) == (1, 2, [1])
    assert [value for _, value in stored.results()] == [0, 1001, 2]
    module.replace("def other():\n    pass", "def other():\n    return 1")
    module.run(Batch.stored(module.store))
    assert module.messages == ["since batch 'b' was last run, other code in changing.py has changed"]
    module.run(module.batch(xs=3))
    assert (module.messages, module.calls) == ([], [])

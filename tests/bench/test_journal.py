"""What was measured survives: an interrupted benchmark goes on, another one begins anew, two processes don't mix."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobrunner import Batch, InlineExecutor, SpecError, StoreError
from jobrunner.bench.journal import Journal, JournalStore, read_benchmark, stored_benchmarks
from jobrunner.bench.result import Sample, Scaling, ScalingRun
from jobrunner.bench.run import stored_result
from jobrunner.bench.timing import Calibration
from jobrunner.storage.owners import this_process

IDENTITY: dict[str, Any] = {
    "series": ["f n=1"],
    "functions": {"f": ["digest", "file", "3.11"]},
    "setup": None,
    "settings": {"samples": 3},
}
DESCRIPTION: dict[str, Any] = {
    "implementations": ["f"],
    "targets": ["m:f"],
    "setup": None,
    "parameters": ["n"],
    "series": [{"name": "f n=1", "implementation": "f", "parameters": {"n": 1}}],
    "settings": {"samples": 3},
    "machine": {"cpu_count": 2},
    "code": {"f": {}},
    "notes": ["a note"],
    "order": 5,
}
CALIBRATION = Calibration(loops=10, values=3, call_s=0.01, overhead_s=1e-8)


def sample(number: int, **about: Any) -> Sample:
    facts: dict[str, Any] = {
        "round": number, "values": (0.01, 0.011), "warmups": (0.02,), "loops": 10, "cpu_s": 0.01, "elapsed_s": 0.5,
        "cores": (1,), "load": 0.1, "started_at": 1e9, "peak_rss_bytes": 10**7,
    }  # fmt: skip
    return Sample(**{**facts, **about})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def opened(path: Path) -> Iterator[JournalStore]:
    with JournalStore(path) as store:
        yield store


def fill(journal: Journal) -> None:
    journal.calibrated("f n=1", CALIBRATION)
    journal.sampled("f n=1", sample(0))
    journal.sampled("f n=1", sample(1, values=(), failure="crashed", error="it has died"))
    journal.scaling_begun(Scaling(name="f n=1", widths=(1, 2), jobs=4, loops=10))
    journal.scaled("f n=1", ScalingRun(round=0, width=2, seconds=1.5, started_at=1e9))
    journal.give_up_width("f n=1", 1, "it fails")
    journal.give_up("f n=1", "enough")


def state(journal: Journal) -> Any:
    return (
        journal.calibrations,
        journal.samples("f n=1"),
        journal.scaling("f n=1"),
        journal.given_up,
        journal.count,
    )


def test_all_that_happened_is_read_again_as_it_was(path: Path, opened: JournalStore) -> None:
    journal, _, message = opened.begin("b", IDENTITY, DESCRIPTION, fresh=False)
    assert message is None
    fill(journal)
    stored, read = read_benchmark(path, "b")
    assert state(read) == state(journal)
    assert stored.owner == this_process()
    assert stored.description == DESCRIPTION
    assert not stored.complete


def test_an_interrupted_benchmark_goes_on(path: Path, opened: JournalStore) -> None:
    journal, _, _ = opened.begin("b", IDENTITY, DESCRIPTION, fresh=False)
    fill(journal)
    opened.end(complete=False)
    with JournalStore(path) as again:
        found, stored, message = again.begin("b", IDENTITY, {**DESCRIPTION, "order": 99}, fresh=False)
        again.end(complete=False)
    assert state(found) == state(journal)
    assert stored.description["order"] == 5
    assert message == "goes on with the 3 samples and runs that were measured before"


def test_one_that_was_measured_to_its_end_is_measured_anew_and_kept(path: Path, opened: JournalStore) -> None:
    journal, _, _ = opened.begin("b", IDENTITY, DESCRIPTION, fresh=False)
    fill(journal)
    opened.end(complete=True)
    found, _, message = opened.begin("b", IDENTITY, DESCRIPTION, fresh=False)
    assert found.count == 0
    assert message is None
    assert read_benchmark(path, "b~1")[1].count == 3


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"functions": {"f": ["another", "file", "3.11"]}}, "the code of f has changed"),
        ({"functions": {"g": ["digest", "file", "3.11"]}}, "its functions have changed"),
        ({"settings": {"samples": 4}}, "its settings have changed"),
        ({"series": ["f n=2"]}, "what is measured has changed"),
        ({"setup": {"s": []}}, "its setup has changed"),
        ({"machine": "Chip 2"}, "the machine has changed"),
        ({"cores": [0]}, "what samples are pinned to has changed"),
    ],
)
def test_another_benchmark_of_the_name_begins_anew_and_says_why(
    path: Path, opened: JournalStore, change: dict[str, Any], why: str
) -> None:
    journal, _, _ = opened.begin("b", IDENTITY, DESCRIPTION, fresh=False)
    fill(journal)
    opened.end(complete=False)
    found, _, message = opened.begin("b", {**IDENTITY, **change}, DESCRIPTION, fresh=False)
    assert found.count == 0
    assert message == f"begun anew ({why}); what there was is now 'b~1'"
    assert read_benchmark(path, "b~1")[1].count == 3


def test_fresh_begins_anew(path: Path, opened: JournalStore) -> None:
    fill(opened.begin("b", IDENTITY, DESCRIPTION, fresh=False)[0])
    opened.end(complete=False)
    found, _, message = opened.begin("b", IDENTITY, DESCRIPTION, fresh=True)
    assert found.count == 0
    assert message == "begun anew (--fresh); what there was is now 'b~1'"


def test_a_benchmark_that_another_process_measures_is_refused(path: Path, opened: JournalStore) -> None:
    opened.begin("b", IDENTITY, DESCRIPTION, fresh=False)
    other = dataclasses.replace(this_process(), pid=1, started="1", machine="another machine", host="far")
    opened.execute("UPDATE benchmark SET owner = ?", json.dumps(dataclasses.asdict(other)))
    with pytest.raises(StoreError, match="is being measured by far pid 1"):
        opened.begin("b", IDENTITY, DESCRIPTION, fresh=False)
    # One that is no more, on this machine, holds nothing.
    dead = dataclasses.replace(this_process(), started="never")
    opened.execute("UPDATE benchmark SET owner = ?", json.dumps(dataclasses.asdict(dead)))
    opened.begin("b", IDENTITY, DESCRIPTION, fresh=False)


def test_a_benchmark_that_another_thread_measures_is_refused(path: Path, opened: JournalStore) -> None:
    opened.begin("b", IDENTITY, DESCRIPTION, fresh=False)
    with JournalStore(path) as other, pytest.raises(StoreError, match="is being measured by"):
        other.begin("b", IDENTITY, DESCRIPTION, fresh=False)
    opened.end(complete=False)
    with JournalStore(path) as other:
        other.begin("b", IDENTITY, DESCRIPTION, fresh=False)
        other.end(complete=False)


def test_without_a_name_the_latest_is_read(path: Path, opened: JournalStore) -> None:
    opened.begin("a", IDENTITY, DESCRIPTION, fresh=False)
    opened.end(complete=False)
    opened.begin("b", IDENTITY, DESCRIPTION, fresh=False)
    assert read_benchmark(path, None)[0].name == "b"
    assert stored_result(path).name == "b"
    assert stored_result(path, "a").notes == ("a note",)
    connection = sqlite3.connect(path)
    assert [each.name for each in stored_benchmarks(connection, path)] == ["a", "b"]
    connection.close()


def test_a_benchmark_that_is_not_there_is_refused_with_what_is(path: Path, opened: JournalStore) -> None:
    with pytest.raises(SpecError, match="there is no benchmark in it yet"):
        read_benchmark(path, None)
    opened.begin("sorting", IDENTITY, DESCRIPTION, fresh=False)
    with pytest.raises(SpecError, match="it has no benchmark 'sortin'; did you mean 'sorting'"):
        read_benchmark(path, "sortin")


def test_a_store_of_batches_only_has_no_benchmark(path: Path) -> None:
    Batch(dict, [{"a": 1}], name="b", store=path).run(InlineExecutor(), False)
    with pytest.raises(SpecError, match="there is no benchmark in it yet"):
        read_benchmark(path, None)


def test_the_store_is_readable_by_its_owner_alone(path: Path, opened: JournalStore) -> None:
    assert path.stat().st_mode & 0o777 == 0o600

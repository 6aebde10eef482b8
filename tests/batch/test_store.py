"""Reading a store: what is in it, who may, and what it says of what it can't read."""

from __future__ import annotations

import contextlib
import os
import pickle
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobrunner import Batch, InlineExecutor, SpecError, StoreError, sweep
from jobrunner.batch.batch import stored_results
from jobrunner.batch.encoding import WITHHELD
from jobrunner.batch.ledger import request_cancel
from jobrunner.batch.store import Store
from jobrunner.storage import trust
from jobrunner.storage.connection import connect


def mixed(x: int) -> Any:
    """JSON for odd, a pickle for even ones, a failure for 5."""
    if x == 5:
        raise ValueError("not five")
    return {"x": x} if x % 2 else (x, x)


def same(x: int) -> int:
    return x


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def batch(path: Path) -> Batch:
    made = Batch(mixed, sweep(x=[4, 3, 5, 2]), name="mixed", store=path)
    made.run(InlineExecutor(), progress=False)
    return made


@contextlib.contextmanager
def another_user(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever reads is not whose the files are."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        yield


def listing(path: Path) -> set[str]:
    return {each.name for each in path.parent.iterdir()}


# --- what is in it ---------------------------------------------------------------------------------------------------


def test_points_are_told_in_the_order_of_the_batch(batch: Batch, path: Path) -> None:
    with Store(path) as store:
        record = store.batch()
        assert [point.parameters["x"] for point in store.points(record)] == [4, 3, 5, 2]
        assert [point.status for point in store.points(record)] == ["done", "done", "failed", "done"]
        assert [point.parameters["x"] for point in store.points(record, "done", first=2)] == [4, 3]
        assert [point.place for point in store.points(record, places=[3, 1])] == [1, 3]
        assert [point.error for point in store.points(record, "failed")] == ["ValueError: not five"]
        (first,) = store.points(record, places=[0], results=True, reports=True, output=True)
        assert store.value(first) == (4, 4)
        assert store.batches() == [record]
        assert store.counts(record) == batch.status()
        assert store.removed(record) == 0
        assert store.notes(record) == []
        assert [runner.pid for runner in store.runners(record)] == [os.getpid()]


def test_what_is_not_asked_for_is_not_read(batch: Batch, path: Path) -> None:
    with Store(path) as store:
        point = next(store.points(store.batch()))
    assert (point.encoded, point.report, point.stdout, point.stderr) == (None, None, None, None)


def test_results_are_those_that_are_done(batch: Batch) -> None:
    assert list(batch.results()) == [({"x": 4}, (4, 4)), ({"x": 3}, {"x": 3}), ({"x": 2}, (2, 2))]


def test_a_batch_is_found_by_its_name_or_if_it_is_the_only_one(batch: Batch, path: Path) -> None:
    with Store(path) as store:
        assert store.batch() == store.batch("mixed")
        with pytest.raises(SpecError, match="it has no batch 'mixd'; did you mean 'mixed'\\?; it has 'mixed'"):
            store.batch("mixd")
    Batch(same, sweep(x=[1]), name="same", store=path).run(InlineExecutor(), progress=False)
    with Store(path) as store:
        with pytest.raises(SpecError, match="it has several batches, name one of them: 'mixed', 'same'"):
            store.batch()
        assert store.batch("same").name == "same"


def test_a_store_can_be_read_while_another_connection_writes(batch: Batch, path: Path) -> None:
    writer = connect(path, write=True)
    try:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE point SET status = 'pending'")
        assert batch.status().done == 3
        writer.execute("COMMIT")
        assert batch.status().done == 0
    finally:
        writer.close()


def test_cancelling_reaches_what_is_not_final(batch: Batch, path: Path) -> None:
    writer = connect(path, write=True)
    try:
        writer.execute("UPDATE point SET status = 'pending' WHERE place IN (0, 1)")
        assert request_cancel(writer, path, batch.record().id, [1, 3]) == 1
        assert batch.status().cancelled == 1
        assert request_cancel(writer, path, batch.record().id) == 1
        assert (batch.status().cancelled, batch.status().done, batch.status().failed) == (2, 1, 1)
    finally:
        writer.close()


# --- what it leaves --------------------------------------------------------------------------------------------------


def test_a_store_is_one_file_for_its_owner_alone_when_nobody_has_it_open(batch: Batch, path: Path) -> None:
    assert listing(path) == {"store.db"}
    assert path.stat().st_mode & 0o777 == 0o600
    list(batch.results())
    assert listing(path) == {"store.db"}


def test_a_connection_for_reading_cannot_write(batch: Batch, path: Path) -> None:
    with Store(path) as store, pytest.raises(StoreError, match="is read-only"):
        store.rows("DELETE FROM point")
    assert batch.status().total == 4


def test_a_new_store_is_its_owners_alone_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        connection = connect(path, write=True, create=True)
        connection.execute("CREATE TABLE more (x)")
        modes = {each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
        connection.close()
    finally:
        os.umask(before)
    assert modes == {0o600}


# --- what it can't read ----------------------------------------------------------------------------------------------


def _text(path: Path) -> None:
    path.write_text("no database\n" * 100)


def _later(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")


def _foreign(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE point (x)")


def _cut(path: Path) -> None:
    os.truncate(path, 6000)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_text, "is no SQLite file"),
        (_later, "was written by a later version of jobrunner"),
        (_foreign, "is another program's SQLite file"),
        (_cut, "is damaged"),
        (_empty, "is empty: nothing was run in it yet"),
        (_directory, "is no file"),
        (_gone, "there is no such store"),
    ],
)
def test_what_is_no_store_is_told_with_its_path(
    batch: Batch, path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    spoil(path)
    readings: list[Callable[[], object]] = [
        lambda: Store(path).batches(),
        batch.record,
        batch.status,
        lambda: list(batch.results()),
        lambda: list(batch.outcomes()),
        lambda: Batch.stored(path),
    ]
    for read in readings:
        with pytest.raises(StoreError) as caught:
            read()
        assert str(caught.value).startswith(f"{path}: {reason}")
        assert caught.value.path == str(path)
    assert not listing(path) - {"store.db"}


def test_a_store_that_stays_locked_is_told(batch: Batch, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobrunner.storage.connection._LOCKED_S", 0.01)
    writer = connect(path, write=True)
    try:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another process has kept it locked"):
            batch.run(InlineExecutor(), progress=False)
    finally:
        writer.close()
    assert batch.run(InlineExecutor(), progress=False).skipped == 3


def test_a_hot_journal_is_not_passed_over(batch: Batch, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it can't be rolled back, the file alone would be a commit cut in two."""
    Path(f"{path}-journal").write_bytes(b"x")

    def refuse(connection: sqlite3.Connection, path: Path) -> int:
        raise sqlite3.OperationalError("attempt to write a readonly database")

    monkeypatch.setattr("jobrunner.storage.connection._check", refuse)
    with pytest.raises(StoreError, match="is read-only"):
        Store(path)


# --- a colleague's ---------------------------------------------------------------------------------------------------


class Trap:
    """Makes a file when it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_a_colleagues_store_is_read_with_its_pickles_withheld(
    batch: Batch, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = connect(path, write=True)
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    writer.execute("UPDATE outcome SET result = ? WHERE format = 'pickle'", (trap,))
    writer.close()
    with another_user(monkeypatch):
        with Store(path) as store:
            assert store.distrust == f"{path} belongs to another user (uid {os.getuid()})"
            values = [value for _, value in stored_results(store, store.batch())]
            assert values == [WITHHELD, {"x": 3}, WITHHELD]
        assert [value for _, value in batch.results()] == values
        assert batch.status().done == 3
    assert not (tmp_path / "sprung").exists()


def test_a_colleagues_store_is_not_run_and_not_touched(
    batch: Batch, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()
    with another_user(monkeypatch):
        with pytest.raises(StoreError, match=r"store.db: its batch is not run: .* belongs to another user"):
            Batch.stored(path)
        with pytest.raises(StoreError, match=r"store.db: is not safe to use: .* belongs to another user"):
            batch.run(InlineExecutor(), progress=False)
        list(batch.outcomes())
        assert listing(path) == {"store.db"}  # files of ours beside it would have its owner refuse it
    assert path.read_bytes() == before


def test_a_colleagues_replicates_are_read_without_what_is_withheld(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Batch(mixed, sweep(x=[2, 3]), name="m", store=path, replicates=2).run(InlineExecutor(), progress=False)
    with another_user(monkeypatch), Store(path) as store:
        (_, withheld), (_, read) = stored_results(store, store.batch())
    assert read == {"x_mean": 3.0, "x_sem": 0.0, "replicates": 2}
    assert withheld == {"result": WITHHELD, "replicates": 2}


@pytest.mark.parametrize("ending", ["-wal", "-journal"])
def test_a_strangers_log_beside_ones_own_store_is_not_replayed(
    batch: Batch, path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = connect(path, write=True)
    writer.execute("PRAGMA wal_autocheckpoint = 0")
    writer.execute("UPDATE point SET status = 'pending'")
    log = Path(f"{path}-wal").read_bytes()
    content = path.read_bytes()
    writer.close()
    path.write_bytes(content)
    Path(f"{path}{ending}").write_bytes(log)
    assert log
    with monkeypatch.context() as patch:
        plain = os.stat

        class System:
            def __getattr__(self, name: str) -> Any:
                return getattr(os, name)

            def stat(self, name: Any) -> os.stat_result:
                found = plain(name)
                strange = str(name).endswith(ending)
                return os.stat_result([*found[:4], found.st_uid + strange, *found[5:10]])

        patch.setattr(trust, "os", System())
        with Store(path) as store:
            assert store.distrust == f"{path}{ending} belongs to another user (uid {os.getuid() + 1})"
            assert store.counts(store.batch()).done == 3
            assert [value for _, value in stored_results(store, store.batch())] == [WITHHELD, {"x": 3}, WITHHELD]
    assert Path(f"{path}{ending}").read_bytes() == log
    if ending == "-wal":
        assert batch.status().done == 0  # one's own is


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to give files away")
def test_root_takes_no_log_over(batch: Batch, path: Path) -> None:
    """SQLite gives a log to the store's owner when root opens it."""
    log = Path(f"{path}-wal")
    log.touch()
    os.chown(log, 12345, -1)
    for _ in range(2):
        with Store(path) as store:
            assert store.distrust == f"{log} belongs to another user (uid 12345)"
        with pytest.raises(StoreError, match="uid 12345"):
            connect(path, write=True)
    assert log.stat().st_uid == 12345


# --- what can't be recorded ------------------------------------------------------------------------------------------


def surrogate(x: int) -> None:
    raise ValueError("bad \udcff name")


def test_texts_that_utf_8_lacks_are_kept_as_escapes(path: Path) -> None:
    summary = Batch(surrogate, sweep(x=[1, 2]), name="s", store=path).run(InlineExecutor(), progress=False)
    assert summary.failed == 2
    with Store(path) as store:
        errors = {point.error for point in store.points(store.batch())}
    assert all(error is not None and "\\udcff" in error for error in errors)


def test_an_error_of_the_writer_that_nobody_foresaw_ends_the_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr("jobrunner.batch.ledger._Writer.record", broken)
        with pytest.raises(Exception, match="can't be written: ZeroDivisionError: a bug"):
            Batch(same, sweep(x=[1, 2]), name="s", store=path).run(InlineExecutor(), progress=False)
    assert Batch(same, sweep(x=[1, 2]), name="s", store=path).run(InlineExecutor(), progress=False).done == 2


def test_a_result_too_large_for_a_store_fails_its_own_point(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobrunner.batch.encoding._MOST", 1000)
    made = Batch(pow, sweep(base=[7], exp=[2, 3000, 3]), name="p", store=path)
    summary = made.run(InlineExecutor(), progress=False)
    assert (summary.done, made.status().failed) == (2, 1)
    assert [value for _, value in made.results()] == [49, 343]


def test_a_name_that_is_no_text_is_refused_at_once(path: Path) -> None:
    with pytest.raises(ValueError, match="name must be UTF-8 text"):
        Batch(same, sweep(x=[1]), name="\udcff", store=path)
    assert not path.exists()

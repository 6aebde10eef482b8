"""Reading a batch store, and opening it with all the checks that come first.

A store is one SQLite file with any number of batches; `jobrunner.batch.schema` has its tables.  Any number of processes
may read it while others write.  What is written goes through `Registry` (a batch's description) and `Ledger` (what
becomes of its points).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote
from urllib.request import pathname2url

from jobrunner.batch.encoding import Encoded, decode
from jobrunner.batch.points import did_you_mean
from jobrunner.batch.schema import APPLICATION_ID, VERSION, create_tables
from jobrunner.batch.trust import network_file_system, other_writers, strange_log
from jobrunner.errors import SpecError, StoreError

__all__ = ["BatchRecord", "Counts", "NoteRecord", "PointRecord", "RunnerRecord", "Store", "connect", "store_errors"]

#: Seconds for which a store that another process keeps locked is waited for.
_LOCKED_S = 30.0

#: Seconds between two tries where SQLite itself does not wait.
_LOCKED_PAUSE_S = 0.01

#: The least version of SQLite: partial upserts, and the write-ahead log read without write permission.
_LEAST_SQLITE = (3, 24, 0)

_POINT_COLUMNS = """
    p.id, p.place, p.parameters, p.replicate, p.seed, p.status, p.attempts,
    o.recorded_at, o.started_at, o.finished_at, o.run_s, o.cpu_s, o.peak_rss_bytes, o.host, o.pid, o.error
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchRecord:
    """One batch of a store, as its table ``batch`` describes it; docs/store.md has each field."""

    id: int
    name: str
    created_at: float
    target: str
    directory: str | None
    parameters: tuple[str, ...]
    varying: tuple[str, ...]
    fixed: Mapping[str, Any]
    options: Mapping[str, Any]
    policy: Mapping[str, Any]
    seed: int | None
    seed_drawn: bool
    replicates: int
    points_digest: str
    total: int
    code: Mapping[str, Any]
    machine: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """How many points of a batch are in each status.

    Attributes:
        pending: nobody has them.
        leased: a process has taken them up, to run them now or soon.
        done: their function returned.
        failed: their job failed.
        cancelled: they were cancelled, and run again with the next run.
    """

    pending: int = 0
    leased: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def total(self) -> int:
        """All points of the batch."""
        return self.pending + self.leased + self.done + self.failed + self.cancelled


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunnerRecord:
    """One process that runs, or ran, a batch.

    Attributes:
        id: its number in the store.
        host: its machine's name.
        machine: the boot and pid namespace that its pid belongs to.
        pid: its process id.
        pid_started: when that process started, as the system counts it.
        workers: how many jobs it runs at a time.
        started_at: when it took the batch up.
        seen_at: its last sign of life.
        ended_at: when it left; None: it has not, or was killed.
        stop_requested: whether it was asked to stop.
        activity: what it was doing at `seen_at`: ``rate`` (jobs a second), ``running`` (a list of ``{"place", "pid",
            "since", "parameters"}``), ``workers`` (a list of ``{"pid", "rss_bytes"}``), ``rss_bytes`` of all its
            processes.
    """

    id: int
    host: str
    machine: str
    pid: int
    pid_started: str
    workers: int
    started_at: float
    seen_at: float
    ended_at: float | None
    stop_requested: bool
    activity: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoteRecord:
    """Something that happened to a batch: a change that was accepted, a warning at a resume."""

    at: float
    kind: str
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class PointRecord:
    """One point (of one replicate), with the last that became of it.  What is not known is None.

    Attributes:
        id: its number in the store.
        place: its place in the batch, from 0; None: it is no longer in the batch.
        parameters: what the function is called with.
        replicate: which repetition of the point, from 0.
        seed: what its random numbers came from.
        status: ``pending``, ``leased``, ``done``, ``failed`` or ``cancelled``.
        attempts: how often it was run to an end, retries included.
        recorded_at, started_at, finished_at: UTC epoch seconds.
        run_s: seconds of the function.
        cpu_s: CPU seconds.
        peak_rss_bytes: peak memory of the job.
        host, pid: where it ran.
        error: why it failed, in one line.
        encoded: the result, if it was asked for.
        report: the job's report, if it was asked for.
        stdout, stderr: what it printed, if that was asked for.
    """

    id: int
    place: int | None
    parameters: Mapping[str, Any]
    replicate: int
    seed: int | None
    status: str
    attempts: int
    recorded_at: float | None
    started_at: float | None
    finished_at: float | None
    run_s: float | None
    cpu_s: float | None
    peak_rss_bytes: int | None
    host: str | None
    pid: int | None
    error: str | None
    encoded: Encoded | None = dataclasses.field(default=None, repr=False)
    report: Mapping[str, Any] | None = dataclasses.field(default=None, repr=False)
    stdout: str | None = dataclasses.field(default=None, repr=False)
    stderr: str | None = dataclasses.field(default=None, repr=False)


class Store:
    """A store that is open for reading.  A context manager; used by one thread.

    Args:
        path: the file.

    Attributes:
        path: the file.
        distrust: how another user could have written the store; None: nobody could.  Pickled results of such a store
            are withheld.

    Raises:
        StoreError: there is no such file, it is no store, it is a later version's, or it can't be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        # Before and after, as opening it may make files beside it, or take such files over.
        distrust = other_writers(self.path)
        self.connection = connect(self.path, write=False)
        self.distrust = distrust or other_writers(self.path)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; further calls fail."""
        self.connection.close()

    def rows(self, query: str, *values: Any) -> list[Any]:
        """All rows of a query.

        Raises:
            StoreError: the store can't be read.
        """
        with store_errors(self.path):
            return self.connection.execute(query, values).fetchall()

    def batches(self) -> list[BatchRecord]:
        """Every batch, the oldest first."""
        return [_batch(row) for row in self.rows("SELECT * FROM batch ORDER BY id")]

    def batch(self, name: str | None = None) -> BatchRecord:
        """The batch of that name; with None, the only one there is.

        Raises:
            SpecError: there is none, or with None more than one; the error lists them.
        """
        return choose_batch(self.connection, self.path, name)

    def counts(self, batch: BatchRecord) -> Counts:
        """How many points are in each status."""
        query = "SELECT status, count(*) FROM point WHERE batch = ? AND place IS NOT NULL GROUP BY status"
        return Counts(**dict(self.rows(query, batch.id)))

    def removed(self, batch: BatchRecord) -> int:
        """How many points the store keeps that are no longer in the batch."""
        query = "SELECT count(*) FROM point WHERE batch = ? AND place IS NULL"
        return int(self.rows(query, batch.id)[0][0])

    def runners(self, batch: BatchRecord) -> list[RunnerRecord]:
        """The processes that run or ran the batch, the first first."""
        return [_runner(row) for row in self.rows("SELECT * FROM runner WHERE batch = ? ORDER BY id", batch.id)]

    def notes(self, batch: BatchRecord) -> list[NoteRecord]:
        """What happened to the batch, the first first."""
        query = "SELECT at, kind, text FROM note WHERE batch = ? ORDER BY id"
        return [NoteRecord(at=at, kind=kind, text=text) for at, kind, text in self.rows(query, batch.id)]

    def points(
        self,
        batch: BatchRecord,
        *statuses: str,
        results: bool = False,
        reports: bool = False,
        output: bool = False,
        places: Sequence[int] | None = None,
        first: int | None = None,
    ) -> Iterator[PointRecord]:
        """The points of a batch in their order, read as they are asked for.

        Args:
            batch: the batch.
            statuses: only points in one of these; default all.
            results: whether `PointRecord.encoded` is wanted.
            reports: whether `PointRecord.report` is.
            output: whether `PointRecord.stdout` and `stderr` are.
            places: only these places.
            first: at most so many points.
        """
        columns = [
            _POINT_COLUMNS,
            "o.format, o.result" if results else "NULL, NULL",
            "o.report" if reports else "NULL",
            "o.stdout, o.stderr" if output else "NULL, NULL",
        ]
        query = f"""
            SELECT {", ".join(columns)} FROM point p LEFT JOIN outcome o ON o.id = p.outcome
            WHERE p.batch = ?
        """  # noqa: S608 - constants
        values: list[Any] = [batch.id]
        if places is None:  # beside a list of places, it would keep SQLite from looking them up
            query += " AND p.place IS NOT NULL"
        if statuses:
            query += f" AND p.status IN ({', '.join('?' * len(statuses))})"
            values += statuses
        if places is not None:
            query += f" AND p.place IN ({', '.join('?' * len(places))})"
            values += places
        query += " ORDER BY p.place"
        if first is not None:
            query += " LIMIT ?"
            values.append(first)
        with store_errors(self.path):
            for row in self.connection.execute(query, values):
                yield _point(row)

    def value(self, point: PointRecord) -> Any:
        """What the function returned at a point that is done, and was read with ``results=True``.

        Raises:
            SerializationError: it is a pickle that can't be loaded.
        """
        assert point.encoded is not None
        return decode(point.encoded, trusted=self.distrust is None)


def connect(path: Path, *, write: bool, create: bool = False) -> sqlite3.Connection:
    """A connection to the store at `path`, which has been checked to be one.

    Args:
        path: the file.
        write: whether it is to be written.
        create: whether to make it where there is none, readable and writable by its owner alone.

    Raises:
        StoreError: see `Store`; and with `write`, somebody else could have written it, or it is read-only.
    """
    if sqlite3.sqlite_version_info < _LEAST_SQLITE:
        least = ".".join(map(str, _LEAST_SQLITE))
        raise StoreError(f"needs SQLite {least} or later, and this Python has {sqlite3.sqlite_version}", path=str(path))
    with store_errors(path):
        if write:
            _check_safe(path)
        if write and create:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600))
        if not path.exists():
            raise StoreError("there is no such store", path=str(path))
        if not path.is_file():
            raise StoreError("is no file", path=str(path))
        if not write:
            return _connect_reading(path)
        if not os.access(path, os.W_OK):
            raise StoreError("is read-only: no run can be recorded in it", path=str(path))
        connection = _open(path, "rw")
        try:
            version = _check(connection, path)  # first: how another program keeps its file is not for us to change
            _set_journal(connection, path)
            if version == 0:
                create_tables(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def _check_safe(path: Path) -> None:
    """Refuse what somebody else could write, before anything is made there."""
    if (danger := other_writers(path)) is not None:
        raise StoreError(
            f"is not safe to use: {danger}; a store holds programs (pickles), so that nobody else may write it: "
            "use one in a directory of your own (--store)",
            path=str(path),
        )


def _connect_reading(path: Path) -> sqlite3.Connection:
    for how in _ways_to_read(path):
        connection = _open(path, how)
        try:
            connection.execute("PRAGMA query_only = ON")
            if _check(connection, path) == 0:
                raise StoreError("is empty: nothing was run in it yet", path=str(path))
        except sqlite3.OperationalError as error:
            connection.close()
            # In a directory that this user may not write, SQLite can't make the log's index.  Without a log none is
            # needed: the file is all there is.  A journal means that a commit was cut short, and is to be undone.
            whole = how == "rw" or (how == "ro" and not any(map(_has_content, _logs(path))))
            if "locked" in str(error) or not whole:
                raise
            continue
        except BaseException:
            connection.close()
            raise
        return connection
    raise AssertionError("the last way returns or raises")


#: Without a look at logs and locks.
_FILE_ALONE = "ro&immutable=1"


def _ways_to_read(path: Path) -> Sequence[str]:
    """How to try to open a store for reading, the best first."""
    if strange_log(path):
        return [_FILE_ALONE]
    if os.access(path, os.W_OK) and other_writers(path) is None:
        # Who may write it clears up when it leaves last: what is in the log goes into the file, and the log goes.
        return ["rw", "ro", _FILE_ALONE]
    with open(path, "rb") as file:
        has_log_mode = file.read(20)[18:] == b"\2\2"
    if has_log_mode and not any(log.exists() for log in _logs(path)):
        # Nobody has it open.  Another way would leave files of ours beside it, for which its owner would refuse it.
        return [_FILE_ALONE]
    return ["ro", _FILE_ALONE]


def _logs(path: Path) -> list[Path]:
    """What may hold a part of the store that is not in its file."""
    file = path.resolve()
    return [file.with_name(f"{file.name}{ending}") for ending in ("-wal", "-journal")]


def _has_content(file: Path) -> bool:
    return file.exists() and file.stat().st_size > 0


def _open(path: Path, mode: str) -> sqlite3.Connection:
    # As bytes: a name need not be UTF-8.
    name = pathname2url(str(path.absolute())) if os.name == "nt" else quote(os.fsencode(path.absolute()))
    address = f"file:{name}?mode={mode}"
    connection = sqlite3.connect(address, uri=True, timeout=_LOCKED_S, isolation_level=None)
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> int:
    """The version of the store's tables; 0: it is empty."""
    # In one transaction: another process may be making the tables.
    connection.execute("BEGIN")
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    tables = int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    connection.execute("COMMIT")
    if application != APPLICATION_ID:
        if version or tables:
            raise StoreError("is another program's SQLite file, not a store of jobrunner's", path=str(path))
        return 0
    if version > VERSION:
        raise StoreError(
            f"was written by a later version of jobrunner (its tables are of version {version}, this one knows "
            f"{VERSION}): update jobrunner, or use another store (--store)",
            path=str(path),
        )
    return version


def _set_journal(connection: sqlite3.Connection, path: Path) -> None:
    """Choose how SQLite keeps a commit whole."""
    mode = "DELETE" if network_file_system(path) is not None else "WAL"
    give_up_at = time.monotonic() + _LOCKED_S
    while True:
        try:
            connection.execute(f"PRAGMA journal_mode = {mode}")
            break
        except sqlite3.OperationalError as error:
            # Of two that change it at the same time, SQLite refuses one at once: it waits for no lock here.
            if "locked" not in str(error) or time.monotonic() > give_up_at:
                raise
            time.sleep(_LOCKED_PAUSE_S)
    # With FULL a commit is on the disk when it returns: what was told to be done stays done after a power cut.
    connection.execute("PRAGMA synchronous = FULL")


_REASONS = {
    "file is not a database": "is no SQLite file, so no store of jobrunner's",
    "database is locked": f"another process has kept it locked for {_LOCKED_S:.0f} s: end that, and run this again",
    "readonly database": "is read-only: nothing can be recorded in it",
    "disk is full": "the disk is full: make room and run the same command again; what was recorded is kept",
    "malformed": "is damaged: SQLite finds it malformed; use another (--store), or a copy of it from before",
    "unable to open": "can't be opened: is its directory there, and may you write in it?",
    "disk I/O error": "the disk has failed to read or write it, or your quota on it is used up: when that is mended, "
    "run the same command again; what was recorded is kept",
}


@contextlib.contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system raise in here into `StoreError`."""
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        reason = next((reason for part, reason in _REASONS.items() if part in text), f"SQLite says: {text}")
        raise StoreError(reason, path=str(path)) from error
    except OSError as error:
        raise StoreError(f"can't be used: {error.strerror or error}", path=str(path)) from error
    except UnicodeEncodeError as error:
        raise StoreError(f"can't keep {error.object!r}: it is no UTF-8 text", path=str(path)) from error


def choose_batch(connection: sqlite3.Connection, path: Path, name: str | None) -> BatchRecord:
    """See `Store.batch`."""
    with store_errors(path):
        names = [found for (found,) in connection.execute("SELECT name FROM batch ORDER BY id")]
        if name is None and len(names) == 1:
            name = names[0]
        if name in names:
            return _batch(connection.execute("SELECT * FROM batch WHERE name = ?", (name,)).fetchone())
    if not names:
        raise SpecError("there is no batch in it yet", file=str(path))
    listed = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
    if name is None:
        raise SpecError(f"it has several batches, name one of them: {listed}", file=str(path), key="--name")
    raise SpecError(f"it has no batch {name!r}{did_you_mean(name, names)}; it has {listed}", file=str(path))


def _batch(row: Sequence[Any]) -> BatchRecord:
    fields = dict(zip((field.name for field in dataclasses.fields(BatchRecord)), row, strict=True))
    for name in ("parameters", "varying", "fixed", "options", "policy", "code", "machine"):
        fields[name] = json.loads(fields[name])
    for name in ("parameters", "varying"):
        fields[name] = tuple(fields[name])
    fields["seed"] = None if fields["seed"] is None else int(fields["seed"])
    fields["seed_drawn"] = bool(fields["seed_drawn"])
    return BatchRecord(**fields)


def _runner(row: Sequence[Any]) -> RunnerRecord:
    number, _, *rest, stop_requested, activity = row
    names = [field.name for field in dataclasses.fields(RunnerRecord)][1:-2]
    return RunnerRecord(
        id=number,
        **dict(zip(names, rest, strict=True)),
        stop_requested=bool(stop_requested),
        activity=json.loads(activity) if activity else {},
    )


_POINT_FIELDS = [field.name for field in dataclasses.fields(PointRecord)][:-4]


def _point(row: Sequence[Any]) -> PointRecord:
    *plain, form, result, report, stdout, stderr = row
    fields = dict(zip(_POINT_FIELDS, plain, strict=True))
    fields["parameters"] = json.loads(fields["parameters"])
    return PointRecord(
        **fields,
        encoded=Encoded(form, result) if form is not None else None,
        report=json.loads(report) if report else None,
        stdout=stdout,
        stderr=stderr,
    )

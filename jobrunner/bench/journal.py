"""What has been measured, as it comes: in memory, and in a store where there is one.

In the store, beside the tables of batches, a benchmark is a row that says what is measured, and an event a row for
each thing that happened to it.  An event is committed when it has happened, so that a benchmark that was killed goes on
where it was; and what a benchmark has measured is what its events say, whoever reads them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from jobrunner.batch import canonical_json, did_you_mean
from jobrunner.bench.result import Sample, Scaling, ScalingRun
from jobrunner.bench.timing import Calibration
from jobrunner.errors import SpecError, StoreError
from jobrunner.storage.connection import connect, store_errors
from jobrunner.storage.owners import Owner, Runs, this_process

__all__ = ["Journal", "JournalStore", "Stored", "read_benchmark", "stored_benchmarks"]

_TABLES = (
    """
    CREATE TABLE IF NOT EXISTS benchmark (
        id          INTEGER PRIMARY KEY,
        name        TEXT NOT NULL UNIQUE,
        created_at  REAL NOT NULL,
        identity    TEXT NOT NULL,
        description TEXT NOT NULL,
        owner       TEXT,
        complete    INTEGER NOT NULL DEFAULT 0
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS benchmark_event (
        id        INTEGER PRIMARY KEY,
        benchmark INTEGER NOT NULL REFERENCES benchmark (id),
        at        REAL NOT NULL,
        kind      TEXT NOT NULL,
        series    TEXT NOT NULL,
        document  TEXT NOT NULL
    )
    """,
    "CREATE INDEX IF NOT EXISTS benchmark_event_by_benchmark ON benchmark_event (benchmark)",
)


#: The benchmarks that this process measures, each on a thread.
_MEASURED: Final = Runs()


class Journal:
    """What was measured of a benchmark.

    Args:
        keep: given each event, its kind, series and document, before it counts; None: nothing is kept.

    Attributes:
        calibrations: the loops of each series.
        given_up: why a series is not measured any further, by its name.
        count: how many samples and runs there are.
        complete: whether all was measured.
    """

    def __init__(self, keep: Keep | None = None) -> None:
        self._keep = keep
        self.calibrations: dict[str, Calibration] = {}
        self.given_up: dict[str, str] = {}
        self.count = 0
        self.complete = False
        self._samples: dict[str, list[Sample]] = {}
        self._scaling: dict[str, Scaling] = {}

    def samples(self, series: str) -> list[Sample]:
        """The samples of a series, in order."""
        return self._samples.setdefault(series, [])

    def scaling(self, series: str) -> Scaling | None:
        """The batch runs of a series, if it was begun to be run as a batch."""
        return self._scaling.get(series)

    # --- what happens ---

    def calibrated(self, series: str, calibration: Calibration) -> None:
        """The loops of a series were found."""
        self._happen("calibrated", series, dataclasses.asdict(calibration))

    def sampled(self, series: str, sample: Sample) -> None:
        """A sample has ended."""
        self._happen("sampled", series, dataclasses.asdict(sample))

    def give_up(self, series: str, reason: str) -> None:
        """A series is not measured any further."""
        self._happen("given up", series, {"reason": reason})

    def scaling_begun(self, scaling: Scaling) -> None:
        """A series is going to be run as a batch."""
        about = {"widths": scaling.widths, "jobs": scaling.jobs, "loops": scaling.loops}
        self._happen("scaling begun", scaling.name, about)

    def scaled(self, series: str, run: ScalingRun) -> None:
        """A batch has ended."""
        self._happen("scaled", series, dataclasses.asdict(run))

    def give_up_width(self, series: str, width: int, reason: str) -> None:
        """A width is not run any further."""
        self._happen("width given up", series, {"width": width, "reason": reason})

    def _happen(self, kind: str, series: str, document: Mapping[str, Any]) -> None:
        text = json.dumps(document, allow_nan=False)
        if self._keep is not None:
            self._keep(kind, series, text)
        self.replay(kind, series, text)

    def replay(self, kind: str, series: str, document: str) -> None:
        """Take in an event, as it was kept."""
        about = json.loads(document)
        if kind == "calibrated":
            self.calibrations[series] = Calibration(**about)
        elif kind == "sampled":
            self.samples(series).append(sample_from(about))
            self.count += 1
        elif kind == "given up":
            self.given_up[series] = about["reason"]
        elif kind == "scaling begun":
            self._scaling[series] = Scaling(
                name=series, widths=tuple(about["widths"]), jobs=about["jobs"], loops=about["loops"]
            )
        elif kind == "scaled":
            scaling = self._scaling[series]
            self._scaling[series] = dataclasses.replace(scaling, runs=(*scaling.runs, ScalingRun(**about)))
            self.count += 1
        elif kind == "width given up":
            scaling = self._scaling[series]
            given_up = {**scaling.given_up, about["width"]: about["reason"]}
            self._scaling[series] = dataclasses.replace(scaling, given_up=given_up)


class Keep:
    """Keeps the events of one benchmark in a store."""

    def __init__(self, store: JournalStore, benchmark: int) -> None:
        self._store = store
        self._benchmark = benchmark

    def __call__(self, kind: str, series: str, document: str) -> None:
        self._store.execute(
            "INSERT INTO benchmark_event (benchmark, at, kind, series, document) VALUES (?, ?, ?, ?, ?)",
            self._benchmark,
            time.time(),
            kind,
            series,
            document,
        )


def sample_from(document: Mapping[str, Any]) -> Sample:
    """A sample that was written as JSON.

    Raises:
        KeyError, TypeError: it is none.
    """
    lists = {name: tuple(document[name]) for name in ("values", "warmups", "cores")}
    return Sample(**{**document, **lists})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored:
    """A benchmark as its store has it.

    Attributes:
        name: its name.
        created_at: UTC epoch seconds.
        description: what is measured, and on what.
        complete: whether it was measured to its end.
        owner: the process that is measuring it; None: none is.
    """

    name: str
    created_at: float
    description: Mapping[str, Any]
    complete: bool
    owner: Owner | None


class JournalStore:
    """A store that is open for measuring.  A context manager; used by one thread.

    Args:
        path: the file; it is made where there is none.

    Raises:
        StoreError: it can't be used.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._connection = connect(self.path, write=True, create=True)
        self._benchmark: int | None = None
        try:
            with self._transaction():
                for statement in _TABLES:
                    self._connection.execute(statement)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> JournalStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def execute(self, statement: str, *values: Any) -> None:
        """Execute one statement, and commit.

        Raises:
            StoreError: the store can't be written.
        """
        with store_errors(self.path):
            self._connection.execute(statement, values)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with store_errors(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def begin(
        self, name: str, identity: Mapping[str, Any], description: Mapping[str, Any], *, fresh: bool
    ) -> tuple[Journal, Stored, str | None]:
        """Take up the benchmark of that name where it was, or begin it.

        It goes on if it is the same and was not measured to its end; otherwise what there is stays under another name.

        Args:
            name: its name.
            identity: what makes it the same.
            description: what the store is to tell of it.
            fresh: whether to begin anew in any case.

        Returns:
            Its journal, with what was measured before; what the store has of it; and what to tell the user of that.

        Raises:
            StoreError: another process is measuring it, or the store can't be written.
        """
        told = canonical_json(identity)
        message = None
        with self._transaction():
            row = self._connection.execute(
                "SELECT id, identity, owner, complete FROM benchmark WHERE name = ?", (name,)
            ).fetchone()
            known = None
            if row is not None:
                known, before, owner, complete = row
                self._check_free(name, known, owner)
                reason = "--fresh" if fresh else _why_anew(json.loads(before), json.loads(told), bool(complete))
                if reason is not None:
                    kept = self._rename(name, known)
                    message = None if complete else f"begun anew ({reason}); what there was is now {kept!r}"
                    known = None
            mine = json.dumps(dataclasses.asdict(this_process()))
            if known is None:
                known = self._connection.execute(
                    "INSERT INTO benchmark (name, created_at, identity, description, owner) VALUES (?, ?, ?, ?, ?)",
                    (name, time.time(), told, json.dumps(description, allow_nan=False), mine),
                ).lastrowid
            else:
                self._connection.execute("UPDATE benchmark SET owner = ? WHERE id = ?", (mine, known))
            assert known is not None
            _MEASURED.begin(self.path, known)
        self._benchmark = known
        journal = Journal(Keep(self, known))
        stored = _read(self._connection, self.path, name, journal)
        if journal.count:
            message = f"goes on with the {journal.count} samples and runs that were measured before"
        return journal, stored, message

    def _check_free(self, name: str, known: int, owner: str | None) -> None:
        holder = Owner(**json.loads(owner)) if owner else None
        if holder is None:
            return
        # By another thread of this process, or by another process; what ended by an error holds nothing.
        ours = holder == this_process()
        if _MEASURED.has(self.path, known) if ours else not holder.visible() or holder.alive():
            raise StoreError(
                f"benchmark {name!r} is being measured by {holder.host} pid {holder.pid}: wait for it, end it, or "
                "choose another --name",
                path=str(self.path),
            )

    def _rename(self, name: str, known: int) -> str:
        taken = {found for (found,) in self._connection.execute("SELECT name FROM benchmark")}
        number = next(n for n in range(1, len(taken) + 2) if f"{name}~{n}" not in taken)
        self._connection.execute("UPDATE benchmark SET name = ? WHERE id = ?", (f"{name}~{number}", known))
        return f"{name}~{number}"

    def end(self, *, complete: bool) -> None:
        """Say that this process measures no more."""
        if self._benchmark is not None:
            _MEASURED.end(self.path, self._benchmark)
        self.execute("UPDATE benchmark SET owner = NULL, complete = ? WHERE id = ?", int(complete), self._benchmark)


def _why_anew(before: Mapping[str, Any], now: Mapping[str, Any], complete: bool) -> str | None:
    """Why a benchmark that there is doesn't go on; None: it does."""
    if complete:
        return "it was measured to its end"
    if before == now:
        return None
    for name, code in now["functions"].items():
        if name in before["functions"] and before["functions"][name] != code:
            return f"the code of {name} has changed"
    for key, what in (
        ("setup", "its setup"),
        ("settings", "its settings"),
        ("series", "what is measured"),
        ("machine", "the machine"),
        ("cores", "what samples are pinned to"),
    ):
        if before.get(key) != now.get(key):
            return f"{what} has changed" if key != "settings" else f"{what} have changed"
    return "its functions have changed"


def stored_benchmarks(connection: sqlite3.Connection, path: Path) -> list[Stored]:
    """The benchmarks of a store, the oldest first.

    Raises:
        StoreError: the store can't be read.
    """
    with store_errors(path):
        if not _has_tables(connection):
            return []
        query = "SELECT name, created_at, description, complete, owner FROM benchmark ORDER BY id"
        return [_stored(row) for row in connection.execute(query)]


def read_benchmark(path: str | os.PathLike[str], name: str | None) -> tuple[Stored, Journal]:
    """A benchmark of a store, with what was measured of it.

    Args:
        path: the store.
        name: the benchmark; None: the latest.

    Raises:
        SpecError: there is none of that name, or none at all.
        StoreError: the store can't be read.
    """
    file = Path(path)
    connection = connect(file, write=False)
    try:
        names = [stored.name for stored in stored_benchmarks(connection, file)]
        if not names:
            raise SpecError("there is no benchmark in it yet", file=str(file))
        if name is not None and name not in names:
            listed = ", ".join(map(repr, names[-20:]))
            raise SpecError(f"it has no benchmark {name!r}{did_you_mean(name, names)}; it has {listed}", file=str(file))
        journal = Journal()
        return _read(connection, file, names[-1] if name is None else name, journal), journal
    finally:
        connection.close()


def _has_tables(connection: sqlite3.Connection) -> bool:
    query = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('benchmark', 'benchmark_event')"
    return bool(connection.execute(query).fetchone()[0] == 2)


def _read(connection: sqlite3.Connection, path: Path, name: str, journal: Journal) -> Stored:
    """What the store has of a benchmark; its events go into the journal."""
    with store_errors(path):
        query = "SELECT id, name, created_at, description, complete, owner FROM benchmark WHERE name = ?"
        known, *row = connection.execute(query, (name,)).fetchone()
        events = "SELECT kind, series, document FROM benchmark_event WHERE benchmark = ? ORDER BY id"
        for kind, series, document in connection.execute(events, (known,)):
            journal.replay(kind, series, document)
        return _stored(row)


def _stored(row: Any) -> Stored:
    name, created_at, description, complete, owner = row
    return Stored(
        name=name,
        created_at=created_at,
        description=json.loads(description),
        complete=bool(complete),
        owner=Owner(**json.loads(owner)) if owner else None,
    )

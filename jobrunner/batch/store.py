"""Reading a batch store.

A store is one SQLite file with any number of batches; `jobrunner.storage.schema` has its tables.  Any number of
processes may read it while others write.  What is written goes through `jobrunner.batch.registry` (a batch's
description) and `jobrunner.batch.ledger` (what becomes of its points).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from jobrunner.batch.advice import AdviceError
from jobrunner.batch.encoding import decode
from jobrunner.batch.points import did_you_mean
from jobrunner.batch.records import (
    POINT_COLUMNS,
    BatchRecord,
    Counts,
    NoteRecord,
    PointRecord,
    RunnerRecord,
    batch_record,
    point_record,
    runner_record,
)
from jobrunner.errors import SpecError
from jobrunner.storage.connection import connect, store_errors
from jobrunner.storage.trust import other_writers

__all__ = ["Store", "choose_batch"]


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
        with store_errors(self.path):
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
        return [batch_record(row) for row in self.rows("SELECT * FROM batch ORDER BY id")]

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
        return [runner_record(row) for row in self.rows("SELECT * FROM runner WHERE batch = ? ORDER BY id", batch.id)]

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
            POINT_COLUMNS,
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
                yield point_record(row)

    def value(self, point: PointRecord) -> Any:
        """What the function returned at a point that is done, and was read with ``results=True``.

        Raises:
            SerializationError: it is a pickle that can't be loaded.
        """
        assert point.encoded is not None
        return decode(point.encoded, trusted=self.distrust is None)


def choose_batch(connection: sqlite3.Connection, path: Path, name: str | None) -> BatchRecord:
    """See `Store.batch`."""
    with store_errors(path):
        names = [found for (found,) in connection.execute("SELECT name FROM batch ORDER BY id")]
        if name is None and len(names) == 1:
            name = names[0]
        if name in names:
            return batch_record(connection.execute("SELECT * FROM batch WHERE name = ?", (name,)).fetchone())
    if not names:
        raise SpecError("there is no batch in it yet", file=str(path))
    listed = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
    if name is None:
        several = f"it has several batches, name one of them: {listed}"
        raise AdviceError(f"name: {several}", command_line=f"--name: {several}", file=str(path))
    raise SpecError(f"it has no batch {name!r}{did_you_mean(name, names)}; it has {listed}", file=str(path))

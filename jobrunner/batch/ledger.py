"""The one that writes what becomes of points into a store: a thread of its own.

::

    run's thread ──ask, record, say──▶ inbox ──▶ writer thread ──one transaction for all that waits──▶ SQLite
         ▲                                            │
         └────── Claimed, Revoked, Beat, Fault ◀──────┘          (put into the run's queue of events)

Guarantees:

- a point is claimed by at most one process that is alive: the claim is committed before it is told;
- an outcome is recorded once, and only by the process that holds the point's lease: one that comes after the lease was
  lost changes nothing;
- what was recorded is on the disk at most `GATHER_S` and the time of one commit later; `close` returns after all of it;
- the first error ends the writing: it is told once as a `Fault`, and nothing is written after it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobrunner.batch.registry import recover, release
from jobrunner.batch.work import Beat, Claimed, Fault, Revoked, Whole, Work
from jobrunner.errors import JobRunnerError, StoreError
from jobrunner.storage.connection import be_patient, connect, store_errors
from jobrunner.storage.owners import RUNS

__all__ = ["GATHER_S", "Entry", "Ledger", "request_cancel"]

#: Seconds for which outcomes are gathered into one commit.
GATHER_S = 0.1

#: Seconds between two signs of life, and two looks at what other processes have asked for.
_BEAT_S = 1.0

#: Seconds between two tries to give back what a run had claimed that failed.
_RELEASE_PAUSE_S = 5.0

#: Counting the whole batch takes one part of this many of the time.
_COUNT_SHARE = 50


@dataclasses.dataclass(frozen=True)
class Entry:
    """One outcome as the table ``outcome`` takes it.

    Attributes:
        point: the point's number in the store.
        status: ``done``, ``failed``, or ``retried`` for an attempt that is followed by another.
        columns: the other columns but ``runner``.
    """

    point: int
    status: str
    columns: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class _Ask:
    count: int


class _Entries:
    """There are entries again."""


@dataclasses.dataclass(frozen=True)
class _Activity:
    text: str


class _Close:
    pass


class Ledger:
    """Claims points for one run, and records their outcomes.  Used by one thread.

    Args:
        path: the store.
        batch: the batch's number.
        runner: this process's number.
        tell: called on the writer thread with each event; it must not block.
        seed_of: the seed of a point, from its parameters and replicate; None if the function takes none.
    """

    def __init__(
        self,
        path: Path,
        batch: int,
        runner: int,
        tell: Callable[[Claimed | Revoked | Beat | Fault], object],
        seed_of: Callable[[Mapping[str, Any], int], int | None],
    ) -> None:
        self._path = path
        self._batch = batch
        self._runner = runner
        self._tell = tell
        self._seed_of = seed_of
        self._inbox: queue.SimpleQueue[_Ask | _Entries | _Activity | _Close] = queue.SimpleQueue()
        self._box = EntryBox()
        self._thread = threading.Thread(target=self._run, name="jobrunner-ledger", daemon=True)
        # The error that ended the writing; written by the writer thread, read after it has ended.
        self._fault: JobRunnerError | None = None

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def ask(self, count: int) -> None:
        """Claim up to `count` points; a `Claimed` follows, as soon as there are some, or none will come."""
        self._inbox.put(_Ask(count))

    def record(self, entry: Entry) -> None:
        """Record an outcome."""
        if self._box.add(entry):
            self._inbox.put(_Entries())

    def say(self, activity: Mapping[str, Any]) -> None:
        """Have others see what this process is doing; see `RunnerRecord.activity`."""
        self._inbox.put(_Activity(json.dumps(activity)))

    def close(self) -> None:
        """Write all that was recorded, give back what is claimed and has no outcome, and end.

        Raises:
            StoreError: it could not be written, now or before.
        """
        self._inbox.put(_Close())
        self._thread.join()
        RUNS.end(self._path, self._runner)
        if self._fault is not None:
            _Release(self._path, self._batch, self._runner).begin()
            raise self._fault

    # --- the writer thread ---

    def _run(self) -> None:
        try:
            with store_errors(self._path):
                connection = connect(self._path, write=True)
                try:
                    be_patient(connection)
                    writer = _Writer(
                        connection, self._path, self._batch, self._runner, self._tell, self._seed_of, self._box
                    )
                    writer.serve(self._inbox)
                finally:
                    connection.close()
        except JobRunnerError as error:
            self._fault = error
        except Exception as error:  # whatever it is, the run must not wait for an answer for ever
            self._fault = StoreError(f"can't be written: {type(error).__name__}: {error}", path=str(self._path))
            self._fault.__cause__ = error
        if self._fault is not None:
            self._tell(Fault(self._fault))


class _Release:
    """Gives back what a run had claimed that could not write any more, as soon as it can be written.

    Other processes see that this one is alive, and would wait for it.
    """

    def __init__(self, path: Path, batch: int, runner: int) -> None:
        self._path = path
        self._batch = batch
        self._runner = runner

    def begin(self) -> None:
        """Try it now, and if that fails now and then, as long as this process lives."""
        if not self._done():
            threading.Thread(target=self._go_on, name="jobrunner-release", daemon=True).start()

    def _go_on(self) -> None:
        pause = threading.Event()
        while not pause.wait(_RELEASE_PAUSE_S) and not self._done():
            pass

    def _done(self) -> bool:
        if not self._path.exists():
            return True
        try:
            with store_errors(self._path), contextlib.closing(connect(self._path, write=True)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                release(connection, self._batch, self._runner)
                connection.execute("COMMIT")
        except StoreError:
            return False
        return True


class EntryBox:
    """Entries on their way to the writer, which need not be woken for each."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        # Whether the writer knows that there are some.  It is cleared before they are taken: one that is added
        # meanwhile is taken as well, or told of again.
        self._known = False

    def add(self, entry: Entry) -> bool:
        """Put an entry in; whether the writer is to be told."""
        self._entries.append(entry)
        if self._known:
            return False
        self._known = True
        return True

    def take(self) -> list[Entry]:
        """All that are in it."""
        self._known = False
        taken = []
        while self._entries:
            taken.append(self._entries.popleft())
        return taken


class _Writer:
    """The thread's side: what it has taken from the inbox, and the connection."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        batch: int,
        runner: int,
        tell: Callable[[Claimed | Revoked | Beat | Fault], object],
        seed_of: Callable[[Mapping[str, Any], int], int | None],
        box: EntryBox,
    ) -> None:
        self.connection = connection
        self.box = box
        self.path = path
        self.batch = batch
        self.runner = runner
        self.tell = tell
        self.seed_of = seed_of
        # How many points were asked for and not yet told; 0: none.
        self.asked = 0
        self.closing = False
        self.activity: str | None = None
        # What `PRAGMA data_version` said: it changes when another connection has written.
        self.version = -1
        self.stop_told = False
        self.revoked: set[int] = set()
        # Whether others have written since the batch was counted, and when it may be counted again.
        self.written_by_others = False
        self.count_at = 0.0
        self.file = os.stat(path)

    def serve(self, inbox: queue.SimpleQueue[Any]) -> None:
        beat_at = time.monotonic()
        while not self.closing:
            self.gather(inbox, beat_at)
            beat = time.monotonic() >= beat_at
            if beat:
                beat_at = time.monotonic() + _BEAT_S
            self.write(beat)
            if beat:
                self.check_file()
                self.tell(Beat(self.look_at_others()))

    def gather(self, inbox: queue.SimpleQueue[Any], until: float) -> None:
        """Take what comes until something can't wait, or has waited long enough."""
        while True:
            try:
                message = inbox.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return
            if isinstance(message, _Entries):
                until = min(until, time.monotonic() + GATHER_S)
            elif isinstance(message, _Activity):
                self.activity = message.text
            else:
                if isinstance(message, _Ask):
                    self.asked = message.count
                else:
                    self.closing = True
                # What waits already goes into the same commit.
                until = 0.0

    def write(self, beat: bool) -> None:
        """Commit what was gathered, then tell what that claimed."""
        execute = self.connection.execute
        claimed: list[Work] | None = None
        execute("BEGIN IMMEDIATE")
        try:
            for entry in self.box.take():
                self.record(entry)
            if beat or self.closing:
                self.sign_of_life()
            if self.asked:
                claimed = self.claim(recovering=beat)
            execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                execute("ROLLBACK")
            raise
        if claimed is not None:
            self.asked = 0
            self.tell(Claimed(claimed))

    def record(self, entry: Entry) -> None:
        execute = self.connection.execute
        final = entry.status != "retried"
        columns = {"point": entry.point, "runner": self.runner, "status": entry.status, **entry.columns}
        number = execute(
            f"INSERT INTO outcome ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",  # noqa: S608
            tuple(columns.values()),
        ).lastrowid
        taken = execute(
            "UPDATE point SET status = ?, attempts = attempts + 1, outcome = ?, runner = ? "
            "WHERE id = ? AND status = 'leased' AND runner = ?",
            (entry.status if final else "leased", number, None if final else self.runner, entry.point, self.runner),
        ).rowcount
        if not taken:
            # The lease was lost, or the point cancelled, before this outcome came.
            execute("DELETE FROM outcome WHERE id = ?", (number,))

    def claim(self, *, recovering: bool) -> list[Work] | None:
        """Take up points; none, if no point is left; None, if there may be some later."""
        execute = self.connection.execute
        query = """
            SELECT id, place, parameters, replicate FROM point
            WHERE batch = ? AND status = 'pending' AND place IS NOT NULL ORDER BY place LIMIT ?
        """
        rows = execute(query, (self.batch, self.asked)).fetchall()
        if not rows:
            others = "SELECT count(*) FROM point WHERE batch = ? AND status = 'leased' AND runner <> ? AND place >= 0"
            if not execute(others, (self.batch, self.runner)).fetchone()[0]:
                return []
            # Others run the rest.  If one of them is no more, its points are free again.
            if recovering:
                recover(self.connection, self.path, self.batch)
                rows = execute(query, (self.batch, self.asked)).fetchall()
            if not rows:
                return None
        works = []
        for number, place, text, replicate in rows:
            parameters = json.loads(text)
            works.append(Work(number, place, parameters, replicate, self.seed_of(parameters, replicate)))
        # Another process may have taken this one for dead; who is ended must hold no lease, for nobody would free it.
        execute(
            "UPDATE runner SET ended_at = NULL, seen_at = ? WHERE id = ? AND ended_at IS NOT NULL",
            (time.time(), self.runner),
        )
        self.connection.executemany(
            "UPDATE point SET status = 'leased', runner = ?, seed = ? WHERE id = ?",
            [(self.runner, work.seed, work.id) for work in works],
        )
        self.revoked.difference_update(work.id for work in works)
        return works

    def sign_of_life(self) -> None:
        execute = self.connection.execute
        now = time.time()
        execute(
            "UPDATE runner SET seen_at = ?, ended_at = NULL, activity = coalesce(?, activity) WHERE id = ?",
            (now, self.activity, self.runner),
        )
        self.activity = None
        if self.closing:
            release(self.connection, self.batch, self.runner)

    def check_file(self) -> None:
        """Notice that the store is no more: what is written then goes nowhere."""
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            there = None
        if there is None or not os.path.samestat(there, self.file):
            raise StoreError(
                "was removed, renamed or replaced while a batch ran: its run has ended", path=str(self.path)
            )

    def look_at_others(self) -> Whole | None:
        """Do what another process has asked this one to do, and count what others have done."""
        version = self.connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self.version:
            self.version = version
            self.written_by_others = True
            self.look_at_requests()
        if not self.written_by_others or time.monotonic() < self.count_at:
            return None
        self.written_by_others = False
        begun = time.monotonic()
        execute = self.connection.execute
        counts = dict(
            execute(
                "SELECT status, count(*) FROM point WHERE batch = ? AND place IS NOT NULL "
                "AND status IN ('done', 'failed') GROUP BY status",
                (self.batch,),
            )
        )
        others = "SELECT coalesce(sum(workers), 0) FROM runner WHERE batch = ? AND ended_at IS NULL AND id <> ?"
        (workers,) = execute(others, (self.batch, self.runner)).fetchone()
        # Of a million points this takes a tenth of a second.
        self.count_at = begun + _COUNT_SHARE * (time.monotonic() - begun)
        return Whole(counts.get("done", 0), counts.get("failed", 0), workers)

    def look_at_requests(self) -> None:
        """Do what another process has asked this one to do."""
        execute = self.connection.execute
        (stop,) = execute("SELECT stop_requested FROM runner WHERE id = ?", (self.runner,)).fetchone()
        query = "SELECT id FROM point WHERE batch = ? AND status = 'cancelled' AND runner = ?"
        revoked = {number for (number,) in execute(query, (self.batch, self.runner))} - self.revoked
        self.revoked |= revoked
        stop = bool(stop) and not self.stop_told
        self.stop_told |= stop
        if stop or revoked:
            self.tell(Revoked(frozenset(revoked), stop))


def request_cancel(connection: sqlite3.Connection, path: Path, batch: int, places: Sequence[int] | None = None) -> int:
    """Cancel the points of a batch that are not final, whichever process has them; that process ends their jobs.

    Args:
        connection: to the store, for writing.
        path: the store.
        batch: the batch's number.
        places: only these places; None: the whole batch, and have its processes stop.

    Returns:
        How many points were cancelled.
    """
    execute = connection.execute
    execute("BEGIN IMMEDIATE")
    try:
        recover(connection, path, batch)
        query = "UPDATE point SET status = 'cancelled' WHERE batch = ? AND status IN ('pending', 'leased')"
        if places is None:
            count = execute(query + " AND place IS NOT NULL", (batch,)).rowcount
            execute("UPDATE runner SET stop_requested = 1 WHERE batch = ? AND ended_at IS NULL", (batch,))
        else:
            count = sum(execute(query + " AND place = ?", (batch, place)).rowcount for place in places)
        execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            execute("ROLLBACK")
        raise
    return count

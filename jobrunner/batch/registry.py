"""What a store says a batch is, and what becomes of that when the same batch is run again.

Everything here is one transaction: after a crash the batch is as it was before, or as it is to be.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobrunner.batch.advice import AdviceError
from jobrunner.batch.identity import CodeIdentity
from jobrunner.batch.points import Points, point_key, text_key
from jobrunner.batch.records import BatchRecord
from jobrunner.batch.store import choose_batch
from jobrunner.batch.values import canonical_json
from jobrunner.errors import StoreError
from jobrunner.storage.connection import store_errors
from jobrunner.storage.owners import RUNS, SILENT_S, Owner, this_process
from jobrunner.storage.trust import network_file_system

__all__ = ["Description", "Registration", "Resumption", "recover", "register", "release"]

#: Points written between two calls of `on_progress`.
_PROGRESS_STEP = 20_000

#: Seconds for which a sign of life of another machine's process is waited for; there should be one each second.
_WATCH_S = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """What a batch is to be.

    Attributes:
        name: its name in the store.
        target: the function's name, as ``module:function`` or ``file.py:function``.
        directory: what `target` is relative to; None: the function can't be imported by that name.
        points: what it is called with, fixed parameters included.
        fixed: the parameters that are the same for every point by declaration.
        options: options of its jobs.
        policy: what to do about failures.
        seed: the batch's seed; None: one that was used before, else `drawn`.
        drawn: a seed drawn at random; None: the function takes none.
        replicates: how often each point is run.
        code: what identifies the function's code.
        machine: the machine, for the record.
    """

    name: str
    target: str
    directory: str | None
    points: Points
    fixed: Mapping[str, Any]
    options: Mapping[str, Any]
    policy: Mapping[str, Any]
    seed: int | None
    drawn: int | None
    replicates: int
    code: CodeIdentity
    machine: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resumption:
    """How a batch that is there already is taken up.

    Attributes:
        fresh: begin anew; what there is stays in the store under another name.
        accept_changes: go on although the function, a fixed parameter or the seed is another.
        retry_failed: run points again that have failed.
    """

    fresh: bool = False
    accept_changes: bool = False
    retry_failed: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Registration:
    """A batch that is ready to be run by this process.

    Attributes:
        batch: as the store has it.
        runner: this process's number in the store.
        messages: what the user should know: warnings, and where an earlier batch went.
    """

    batch: BatchRecord
    runner: int
    messages: Sequence[str]


def register(
    connection: sqlite3.Connection,
    path: Path,
    description: Description | None,
    resumption: Resumption,
    *,
    name: str | None = None,
    code: CodeIdentity | None = None,
    workers: int,
    on_progress: Callable[[int, int], object] | None = None,
) -> Registration:
    """Bring a batch's description into the store, and this process as one that runs it.

    Args:
        connection: to a store, for writing.
        path: the store's file, for errors.
        description: the batch; None: the one in the store, as it is.
        resumption: what to do if the batch is there already.
        name: with no description, the batch's name; None: the only one.
        code: with no description, what identifies the function's code.
        workers: how many jobs this process runs at a time.
        on_progress: called now and then with the number of points written, and of all.

    Raises:
        SpecError: the batch is another than the one of that name in the store, and `resumption` does not accept that.
        StoreError: the store can't be written, or is used from another machine where that is not safe.
    """
    messages: list[str] = []
    with store_errors(path):
        _check_other_hosts(connection, path)
    with store_errors(path), _transaction(connection):
        # Keys come in no order: with the usual 2 MB, writing a million of them would wait for pages.
        connection.execute("PRAGMA cache_size = -100000")
        if description is None:
            batch, messages = _resume_as_stored(connection, path, name, code, resumption)
        else:
            batch, messages = _Registrar(connection, path, description, resumption, on_progress).register()
        recover(connection, path, batch.id)
        again = "UPDATE point SET status = 'pending', runner = NULL WHERE batch = ? AND status = ? AND place >= 0"
        for status in ["cancelled", *(["failed"] if resumption.retry_failed else [])]:
            connection.execute(again, (batch.id, status))
        owner, now = this_process(), time.time()
        runner = connection.execute(
            "INSERT INTO runner (batch, host, machine, pid, pid_started, workers, started_at, seen_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (batch.id, owner.host, owner.machine, owner.pid, owner.started, workers, now, now),
        ).lastrowid
        assert runner is not None
        # Before the commit: a thread that finds the runner in the store and not here takes it for dead.
        RUNS.begin(path, runner)
    return Registration(batch=batch, runner=runner, messages=messages)


def _resume_as_stored(
    connection: sqlite3.Connection, path: Path, name: str | None, code: CodeIdentity | None, resumption: Resumption
) -> tuple[BatchRecord, list[str]]:
    """Take up a batch whose description is the one in the store; only its code may have changed."""
    if resumption.fresh:
        needs = "what begins anew needs its description"
        raise AdviceError(
            f"{needs}: make the Batch of its function and points, in place of Batch.stored",
            command_line=f"--fresh: {needs}: name the spec, or the function and its points",
            file=str(path),
        )
    before = choose_batch(connection, path, name)
    if code is None:
        return before, []
    messages = _take_up(connection, path, before, code.changes(before.code), code.warnings(before.code), resumption)
    connection.execute("UPDATE batch SET code = ? WHERE id = ?", (json.dumps(code.as_dict()), before.id))
    return choose_batch(connection, path, before.name), messages


def _take_up(
    connection: sqlite3.Connection,
    path: Path,
    before: BatchRecord,
    changes: Sequence[str],
    warnings: Sequence[str],
    resumption: Resumption,
) -> list[str]:
    """Refuse changes that make another batch, unless they are accepted, and write down what has changed.

    Returns:
        What the user should know.
    """
    if changes and not resumption.accept_changes:
        begun = f"batch {before.name!r} was begun otherwise: {'; '.join(changes)}."
        raise AdviceError(
            f"{begun} {_advice('run(accept_changes=True)', 'run(fresh=True)', 'Batch(name=...)')}",
            command_line=f"{begun} {_advice('--accept-changes', '--fresh', '--name')}",
            file=str(path),
        )
    if changes and recover(connection, path, before.id):
        raise StoreError(
            f"batch {before.name!r} is being run by another process, and {'; '.join(changes)}: end that first",
            path=str(path),
        )
    for kind, texts in (("accepted", changes), ("warning", warnings)):
        connection.executemany(
            "INSERT INTO note (batch, at, kind, text) VALUES (?, ?, ?, ?)",
            [(before.id, time.time(), kind, text) for text in texts],
        )
    return [f"since batch {before.name!r} was last run, {'; '.join(warnings)}"] if warnings else []


def _advice(accept: str, fresh: str, name: str) -> str:
    return (
        f"{accept} keeps what is done and runs the rest as it is now, {fresh} begins anew (what there is stays under "
        f"another name), {name} makes another batch"
    )


def recover(connection: sqlite3.Connection, path: Path, batch: int) -> int:
    """Give back what processes that are no more had taken up; to be called in a transaction.

    Returns:
        How many processes that run the batch are still alive.
    """
    alive = 0
    for number, owner, seen_at in _owners(connection, batch):
        if _is_alive(path, number, owner, seen_at):
            alive += 1
            continue
        _give_back(connection, batch, number)
        connection.execute("UPDATE runner SET ended_at = seen_at WHERE id = ?", (number,))
    return alive


def release(connection: sqlite3.Connection, batch: int, runner: int) -> None:
    """Give back what a process that leaves had taken up; to be called in a transaction."""
    _give_back(connection, batch, runner)
    connection.execute("UPDATE runner SET ended_at = ?, activity = NULL WHERE id = ?", (time.time(), runner))


def _give_back(connection: sqlite3.Connection, batch: int, runner: int) -> None:
    """Free the points that a process had taken up."""
    connection.execute(
        "UPDATE point SET status = 'pending', runner = NULL WHERE batch = ? AND status = 'leased' AND runner = ?",
        (batch, runner),
    )


def _owners(connection: sqlite3.Connection, batch: int | None = None) -> list[tuple[int, Owner, float]]:
    """The processes that have not said that they left."""
    query = "SELECT id, host, machine, pid, pid_started, seen_at FROM runner WHERE ended_at IS NULL"
    rows = connection.execute(query + ("" if batch is None else f" AND batch = {int(batch)}")).fetchall()
    return [(number, Owner(*owner), seen_at) for number, *owner, seen_at in rows]


def _is_alive(path: Path, number: int, owner: Owner, seen_at: float) -> bool:
    if owner == this_process():
        return RUNS.has(path, number)
    return owner.alive() if owner.visible() else abs(time.time() - seen_at) < SILENT_S


def _check_other_hosts(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a store on a network file system that a process on another machine uses.

    Its clock may be wrong: whose last sign of life seems old is watched for another one.
    """
    kind = network_file_system(path)
    if kind is None:
        return
    before = {number: (owner, seen_at) for number, owner, seen_at in _owners(connection) if not owner.visible()}
    alive = [owner for number, (owner, seen_at) in before.items() if _is_alive(path, number, owner, seen_at)]
    if before and not alive:
        threading.Event().wait(_WATCH_S)
        now = {number: seen_at for number, _, seen_at in _owners(connection)}
        alive = [owner for number, (owner, seen_at) in before.items() if now.get(number, seen_at) != seen_at]
    for owner in alive:
        raise StoreError(
            f"is in use on another machine, {owner.host} (pid {owner.pid}), and is on a network file system ({kind}), "
            "on which two machines can't share a store: end that run, or use a store of its own here (--store)",
            path=str(path),
        )


class _transaction:  # noqa: N801 - used like contextlib's
    """Begin at once, commit at the end, roll back on an error."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def __enter__(self) -> None:
        self.connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.connection.execute("COMMIT")
        elif self.connection.in_transaction:
            self.connection.execute("ROLLBACK")


class _Registrar:
    """One registration of a description."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        description: Description,
        resumption: Resumption,
        on_progress: Callable[[int, int], object] | None,
    ) -> None:
        self.connection = connection
        self.path = path
        self.description = description
        self.resumption = resumption
        self.on_progress = on_progress or (lambda written, total: None)
        self.messages: list[str] = []
        self.total = len(description.points) * description.replicates
        self.digest = f"{description.points.digest()} x {description.replicates}"

    def register(self) -> tuple[BatchRecord, list[str]]:
        name = self.description.name
        known = self.connection.execute("SELECT 1 FROM batch WHERE name = ?", (name,)).fetchone() is not None
        if known and self.resumption.fresh:
            self.set_aside()
            known = False
        if known:
            self.resume(choose_batch(self.connection, self.path, name))
        else:
            self.insert()
        return choose_batch(self.connection, self.path, name), self.messages

    def set_aside(self) -> None:
        """Give the batch that has the name another, so that nothing of it is lost."""
        name = self.description.name
        before = choose_batch(self.connection, self.path, name)
        if recover(self.connection, self.path, before.id):
            raise StoreError(f"batch {name!r} is being run by another process; end that first", path=str(self.path))
        taken = {found for (found,) in self.connection.execute("SELECT name FROM batch")}
        number = next(n for n in range(1, len(taken) + 2) if f"{name}~{n}" not in taken)
        self.connection.execute("UPDATE batch SET name = ? WHERE id = ?", (f"{name}~{number}", before.id))
        self.messages.append(f"begun anew; what there was is now batch '{name}~{number}'")

    def insert(self) -> None:
        about = self.description
        seed = about.seed if about.seed is not None else about.drawn
        fields = {
            "name": about.name,
            "created_at": time.time(),
            "seed": None if seed is None or about.drawn is None else str(seed),
            "seed_drawn": int(about.seed is None and about.drawn is not None),
            **self.variable_fields(),
        }
        number = self.connection.execute(
            f"INSERT INTO batch ({', '.join(fields)}) VALUES ({', '.join('?' * len(fields))})",  # noqa: S608 - columns
            tuple(fields.values()),
        ).lastrowid
        assert number is not None
        self.write_points(number)

    def variable_fields(self) -> dict[str, Any]:
        """The columns that a resume may change."""
        about = self.description
        return {
            "target": about.target,
            "directory": about.directory,
            "parameters": json.dumps(list(about.points.names)),
            "varying": json.dumps(list(about.points.varying())),
            "fixed": canonical_json(about.fixed),
            "options": json.dumps(dict(about.options)),
            "policy": json.dumps(dict(about.policy)),
            "replicates": about.replicates,
            "points_digest": self.digest,
            "total": self.total,
            "code": json.dumps(about.code.as_dict()),
            "machine": json.dumps(dict(about.machine)),
        }

    def resume(self, before: BatchRecord) -> None:
        about = self.description
        changes, warnings = self.changes(before), about.code.warnings(before.code)
        self.messages += _take_up(self.connection, self.path, before, changes, warnings, self.resumption)
        fields = self.variable_fields()
        if about.seed is not None and about.drawn is not None and about.seed != before.seed:
            fields |= {"seed": str(about.seed), "seed_drawn": 0}
        elif before.seed is None and about.drawn is not None:  # it takes a seed now
            fields |= {"seed": str(about.drawn), "seed_drawn": 1}
        assignments = ", ".join(f"{column} = ?" for column in fields)
        self.connection.execute(
            f"UPDATE batch SET {assignments} WHERE id = ?",  # noqa: S608 - columns
            (*fields.values(), before.id),
        )
        if canonical_json(about.fixed) != canonical_json(before.fixed):
            self.rename_points(before)
        if self.digest != before.points_digest:
            self.write_points(before.id, again=True)

    def changes(self, before: BatchRecord) -> list[str]:
        """How the batch differs from the one in the store, where that makes its results other ones."""
        about = self.description
        found = about.code.changes(before.code)
        for name in sorted({*about.fixed, *before.fixed}):
            now, then = about.fixed.get(name), before.fixed.get(name)
            if name not in before.fixed:
                if name not in before.parameters:
                    found.append(f"fixed parameter {name} is {now!r}, and was not given")
            elif name not in about.fixed:
                if name not in about.points.names:
                    found.append(f"fixed parameter {name} is not given, and was {then!r}")
            elif canonical_json(now) != canonical_json(then):
                found.append(f"fixed parameter {name} is {now!r}, and was {then!r}")
        if about.seed is not None and about.drawn is not None and about.seed != before.seed:
            found.append(f"the seed is {about.seed}, and was {before.seed}")
        return found

    def rename_points(self, before: BatchRecord) -> None:
        """Have what is there stand for the same points with the fixed parameters of now.

        What is done keeps the parameters that it was run with.  A parameter that was swept and is fixed now, or the
        other way round, keeps the value that each point has.
        """
        fixed, names = self.description.fixed, {*self.description.fixed, *self.description.points.names}
        # Where two come to stand for one point, the first has it: one of the batch, one that is done.
        rows = self.connection.execute(
            "SELECT id, parameters, replicate, status FROM point WHERE batch = ? "
            "ORDER BY place IS NULL, status <> 'done', id DESC",
            (before.id,),
        ).fetchall()
        renamed = []
        for number, text, replicate, status in rows:
            kept = json.loads(text)
            parameters = {name: value for name, value in kept.items() if name not in before.fixed or name in names}
            parameters |= {name: value for name, value in fixed.items() if name in before.fixed or name not in kept}
            shown = text if status == "done" else canonical_json(parameters)
            renamed.append((point_key(parameters, replicate), shown, number))
        # In two steps: a new key may be the old one of another point.
        self.connection.execute("UPDATE point SET key = 'old ' || id WHERE batch = ?", (before.id,))
        self.connection.executemany("UPDATE OR IGNORE point SET key = ?, parameters = ? WHERE id = ?", renamed)

    def write_points(self, batch: int, *, again: bool = False) -> None:
        """Write the points that are not there; those that are get their places, and others lose theirs."""
        execute = self.connection.execute
        insert = "INSERT INTO point (batch, place, key, parameters, replicate) VALUES (?, ?, ?, ?, ?)"
        if again:
            insert += " ON CONFLICT (batch, key) DO UPDATE SET place = excluded.place WHERE place IS NOT excluded.place"
        self.connection.executemany(insert, self.point_rows(batch))
        placed = "SELECT count(*) FROM point WHERE batch = ? AND place IS NOT NULL"
        if execute(placed, (batch,)).fetchone()[0] != self.total:
            # Some are no longer in the batch: none is, until it has its place again.
            if recover(self.connection, self.path, batch):
                raise StoreError(
                    f"batch {self.description.name!r} is being run by another process, so that none of its points can "
                    "be taken out: end that first, or give all of them",
                    path=str(self.path),
                )
            execute("UPDATE point SET place = NULL WHERE batch = ? AND place IS NOT NULL", (batch,))
            self.connection.executemany(insert, self.point_rows(batch))
        self.on_progress(self.total, self.total)

    def point_rows(self, batch: int) -> Iterator[tuple[int, int, bytes, str, int]]:
        replicates = self.description.replicates
        place = 0
        for parameters in self.description.points:
            text = canonical_json(parameters)
            for replicate in range(replicates):
                yield batch, place, text_key(text, replicate), text, replicate
                place += 1
                if place % _PROGRESS_STEP == 0:
                    self.on_progress(place, self.total)

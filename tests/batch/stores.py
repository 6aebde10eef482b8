"""Stores with batches in them, written row by row: what a run leaves, without a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobrunner.batch.encoding import encode
from jobrunner.batch.values import canonical_json
from jobrunner.storage.connection import connect
from jobrunner.storage.owners import RUNS, Owner, this_process

__all__ = ["BEGUN", "StoreBuilder", "gone"]

#: A moment in UTC epoch seconds.
BEGUN = 1_700_000_000.0


class StoreBuilder:
    """Writes into a store, made if there is none.  To be closed.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = connect(path, write=True, create=True)
        self.connection.execute("PRAGMA synchronous = OFF")  # a test need not survive a power cut

    def close(self) -> None:
        self.connection.close()

    def insert(self, table: str, **columns: Any) -> int:
        """Write one row, and return its number."""
        query = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608
        number = self.connection.execute(query, tuple(columns.values())).lastrowid
        assert number is not None
        return number

    def batch(self, name: str = "squares", *, parameters: Sequence[str] = ("x",), total: int = 0, **other: Any) -> int:
        """Write a batch without points, and return its number."""
        columns: dict[str, Any] = {
            "name": name,
            "created_at": BEGUN,
            "target": "functions:square",
            "directory": "/nowhere",
            "parameters": json.dumps(list(parameters)),
            "varying": json.dumps(list(parameters)),
            "fixed": "{}",
            "options": json.dumps({"capture_output": True}),
            "policy": json.dumps({"retries": 0, "max_failures": None}),
            "seed": None,
            "seed_drawn": 0,
            "replicates": 1,
            "points_digest": "",
            "total": total,
            "code": "{}",
            "machine": "{}",
        }
        return self.insert("batch", **{**columns, **other})

    def runner(self, batch: int, owner: Owner | None = None, **other: Any) -> int:
        """Write a process that runs the batch, this one by default, and return its number."""
        here = owner is None
        owner = owner or this_process()
        columns: dict[str, Any] = {
            "batch": batch,
            "host": owner.host,
            "machine": owner.machine,
            "pid": owner.pid,
            "pid_started": owner.started,
            "workers": 2,
            "started_at": BEGUN,
            "seen_at": BEGUN + 60,
        }
        number = self.insert("runner", **{**columns, **other})
        if here:
            RUNS.begin(self.path, number)
        return number

    def point(
        self,
        batch: int,
        place: int | None,
        parameters: Mapping[str, Any],
        status: str = "pending",
        *,
        replicate: int = 0,
        runner: int | None = None,
    ) -> int:
        """Write a point without an outcome, and return its number."""
        text = canonical_json(parameters)
        return self.insert(
            "point",
            batch=batch,
            place=place,
            key=f"{place} {replicate} {text}".encode(),
            parameters=text,
            replicate=replicate,
            seed=1000 + (place or 0),
            status=status,
            runner=runner,
        )

    def outcome(self, point: int, runner: int, status: str, **other: Any) -> int:
        """Write what became of a point; ``report`` may be given as a dict."""
        if isinstance(other.get("report"), dict):
            other["report"] = json.dumps(other["report"])
        columns: dict[str, Any] = {
            "point": point,
            "runner": runner,
            "status": status,
            "recorded_at": BEGUN + 10,
            "started_at": BEGUN + 1,
            "finished_at": BEGUN + 3,
            "run_s": 2.0,
            "host": "somewhere",
            "pid": 4321,
        }
        number = self.insert("outcome", **{**columns, **other})
        self.connection.execute("UPDATE point SET outcome = ?, attempts = attempts + 1 WHERE id = ?", (number, point))
        return number

    def done(
        self,
        batch: int,
        runner: int,
        place: int | None,
        parameters: Mapping[str, Any],
        value: Any,
        *,
        replicate: int = 0,
        **other: Any,
    ) -> None:
        """Write a point that is done, with what its function returned."""
        point = self.point(batch, place, parameters, "done", replicate=replicate)
        form, data = encode(value)
        self.outcome(point, runner, "done", **{"format": form, "result": data, **other})

    def failed(
        self, batch: int, runner: int, place: int, parameters: Mapping[str, Any], error: str, **other: Any
    ) -> None:
        """Write a point that failed."""
        self.outcome(self.point(batch, place, parameters, "failed"), runner, "failed", error=error, **other)

    def many(self, batch: int, statuses: Mapping[str, int], runner: int) -> None:
        """Write many points ``{"x": place}``, so many in each status, those that are done with the result ``x``."""
        place = 0
        outcome = int(self.connection.execute("SELECT coalesce(max(id), 0) FROM outcome").fetchone()[0])
        points, outcomes = [], []
        self.connection.execute("BEGIN")
        number = int(self.connection.execute("SELECT coalesce(max(id), 0) FROM point").fetchone()[0])
        for status, count in statuses.items():
            for _ in range(count):
                number += 1
                if status == "done":
                    outcome += 1
                    outcomes.append((outcome, number, runner, BEGUN, str(place)))
                done = outcome if status == "done" else None
                points.append((number, batch, place, str(place).encode(), f'{{"x":{place}}}', status, done))
                place += 1
        self.connection.executemany(
            "INSERT INTO outcome (id, point, runner, status, recorded_at, format, result) "
            "VALUES (?, ?, ?, 'done', ?, 'json', ?)",
            outcomes,
        )
        self.connection.executemany(
            "INSERT INTO point (id, batch, place, key, parameters, replicate, status, outcome) "
            "VALUES (?, ?, ?, ?, ?, 0, ?, ?)",
            points,
        )
        self.connection.execute("COMMIT")


def gone() -> Owner:
    """A process of this machine that is no more: its pid now has another, which started at another time."""
    here = this_process()
    return Owner(host=here.host, machine=here.machine, pid=here.pid, started="never")

"""Stores as a run leaves them, written by SQL: any number of points in a moment."""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobrunner.batch.encoding import encode
from jobrunner.storage.connection import connect
from jobrunner.storage.owners import this_process

__all__ = ["BEGIN", "StoreMaker", "ising_store", "many_store", "small_store"]

#: When the batches of these stores began: 2026-03-01 20:00 UTC.
BEGIN = 1_772_395_200.0


class StoreMaker:
    """Writes one batch into a new store.

    Args:
        path: the store.
        name: the batch's name.
        fields: of its row, those that differ from the usual.
    """

    def __init__(self, path: Path, name: str = "batch", **fields: Any) -> None:
        self.connection: sqlite3.Connection = connect(path, write=True, create=True)
        self.connection.execute("BEGIN")
        self.places = 0
        row = {
            "name": name,
            "created_at": BEGIN,
            "target": "model.py:simulate",
            "directory": "/home/ada/model",
            "parameters": [],
            "varying": [],
            "fixed": {},
            "options": {},
            "policy": {},
            "seed": "1944",
            "seed_drawn": 0,
            "replicates": 1,
            "points_digest": "",
            "total": 0,
            "code": {"module": "model", "qualname": "simulate", "file": "/home/ada/model/model.py", "python": "3.11.8"},
            "machine": {"host": "node1", "platform": "Linux-x86_64", "cpu_count": 8, "memory_bytes": 2**35},
            **fields,
        }
        self.batch = self._insert("batch", {key: _column(value) for key, value in row.items()})

    def runner(
        self,
        began: float,
        ended: float | None,
        *,
        workers: int = 2,
        host: str = "node1",
        pid: int = 4242,
        here: bool = False,
    ) -> int:
        """A process that ran the batch; times in seconds after `BEGIN`.  `here`: it is the calling one."""
        owner = this_process()
        row = {
            "batch": self.batch,
            "host": host,
            "machine": owner.machine if here else "another boot",
            "pid": owner.pid if here else pid,
            "pid_started": owner.started if here else "1",
            "workers": workers,
            "started_at": BEGIN + began,
            "seen_at": BEGIN + (ended if ended is not None else began),
            "ended_at": BEGIN + ended if ended is not None else None,
        }
        return self._insert("runner", row)

    def point(self, parameters: Mapping[str, Any], status: str = "pending", replicate: int = 0) -> int:
        """A point without an outcome."""
        text = json.dumps(parameters, sort_keys=True)
        key = hashlib.sha256(f"{text}{replicate}{self.places}".encode()).digest()
        row = {
            "batch": self.batch,
            "place": self.places,
            "key": key,
            "parameters": text,
            "replicate": replicate,
            "seed": self.places,
            "status": status,
        }
        self.places += 1
        return self._insert("point", row)

    def outcome(
        self,
        point: int,
        runner: int,
        start: float,
        run_s: float,
        *,
        status: str = "done",
        result: Any = None,
        error: str | None = None,
        report: Mapping[str, Any] | None = None,
        rss: int | None = 50 * 2**20,
        cpu_s: float | None = None,
        host: str = "node1",
        pid: int = 5001,
        stderr: str | None = None,
    ) -> None:
        """What became of a point; the start in seconds after `BEGIN`."""
        encoded = encode(result) if status == "done" else None
        row = {
            "point": point,
            "runner": runner,
            "status": status,
            "recorded_at": BEGIN + start + run_s + 0.01,
            "started_at": BEGIN + start,
            "finished_at": BEGIN + start + run_s,
            "run_s": run_s,
            "cpu_s": run_s if cpu_s is None else cpu_s,
            "peak_rss_bytes": rss,
            "host": host,
            "pid": pid,
            "error": error,
            "report": json.dumps(report) if report is not None else None,
            "format": encoded.format if encoded else None,
            "result": encoded.data if encoded else None,
            "stderr": stderr,
        }
        number = self._insert("outcome", row)
        if status == "retried":
            self.connection.execute("UPDATE point SET attempts = attempts + 1 WHERE id = ?", (point,))
        else:
            self.connection.execute(
                "UPDATE point SET attempts = attempts + 1, status = ?, outcome = ?, runner = ? WHERE id = ?",
                (status, number, runner, point),
            )

    def note(self, kind: str, text: str) -> None:
        """Something that happened to the batch."""
        self._insert("note", {"batch": self.batch, "at": BEGIN, "kind": kind, "text": text})

    def close(self) -> None:
        """Commit, and close the store."""
        self.connection.execute("UPDATE batch SET total = ? WHERE id = ?", (self.places, self.batch))
        self.connection.execute("COMMIT")
        self.connection.close()

    def _insert(self, table: str, row: Mapping[str, Any]) -> int:
        columns, marks = ", ".join(row), ", ".join("?" * len(row))
        number = self.connection.execute(
            f"INSERT INTO {table} ({columns}) VALUES ({marks})",  # noqa: S608 - names of columns
            tuple(row.values()),
        ).lastrowid
        assert number is not None
        return number


def _column(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (list, tuple, dict)) else value


def small_store(path: Path) -> None:
    """Ten jobs on two workers: eight done, one failed, one failed and then done at its second attempt."""
    maker = StoreMaker(path, "small", parameters=["x", "mode"], varying=["x"], fixed={"mode": "fast"})
    runner = maker.runner(0, 12, workers=2)
    for x in range(10):
        point = maker.point({"x": x, "mode": "fast"})
        start, worker = float(x // 2 * 2), 5001 + x % 2
        if x == 3:
            maker.outcome(
                point,
                runner,
                start,
                1.0,
                status="failed",
                pid=worker,
                error="ValueError: three is not welcome",
                report={
                    "cause": "ValueError: three is not welcome",
                    "stack": 'File "model.py", line 3, in simulate',
                    "exit_code": None,
                    "exit_signal": 11,
                },
                stderr="warning: three\n",
            )
            continue
        if x == 5:
            maker.outcome(point, runner, start, 0.5, status="retried", pid=worker, error="the worker died")
            start += 0.5
        maker.outcome(point, runner, start, 1.5 if x == 9 else 1.0, pid=worker, result={"square": x * x, "name": "n"})
    maker.close()


def ising_store(path: Path, *, replicates: int = 1) -> None:
    """Some five hundred jobs over two parameters on eight workers of two machines, run in two sittings; some fail."""
    draw = random.Random(7)
    maker = StoreMaker(
        path,
        "ising",
        target="ising.py:simulate",
        parameters=["size", "temperature", "sweeps"],
        varying=["size", "temperature"],
        fixed={"sweeps": 4000},
        options={"time_limit": 600.0, "memory_limit": 2**31},
        replicates=replicates,
        code={
            "module": "ising",
            "qualname": "simulate",
            "function_digest": "9f" * 32,
            "file": "/home/ada/model/ising.py",
            "python": "3.11.8",
            "packages": {"numpy": "2.1.0", "cloudpickle": "3.1.0"},
            "git_revision": "07af7bd0" * 5,
        },
    )
    runners = [
        [maker.runner(0, 560, workers=4, pid=900), maker.runner(5, 560, workers=4, host="node2", pid=77)],
        [
            maker.runner(30_000, 30_860, workers=4, pid=901),
            maker.runner(30_005, 30_860, workers=4, host="node2", pid=78),
        ],
    ]
    free = [(0.0, worker) for worker in range(8)]
    causes = (
        ("the job's process was killed by signal 9 (SIGKILL)", 9),
        ("the job ran past its time limit of 600 s and was ended", None),
        ("ZeroDivisionError: division by zero", None),
    )
    for size in (8, 16, 32, 64):
        for step in range(126 // replicates):
            for replicate in range(replicates):
                temperature = round(1.5 + step * 0.016 * replicates, 3)
                free.sort()
                start, worker = free.pop(0)
                sitting = int(start > 500)
                if sitting and start < 30_000:
                    start = 30_005 + draw.random()
                run_s = (size / 8) ** 1.2 * 4 * draw.lognormvariate(0, 0.25)
                free.append((start + run_s + 0.05, worker))
                point = maker.point({"size": size, "temperature": temperature, "sweeps": 4000}, replicate=replicate)
                common: dict[str, Any] = {
                    "host": f"node{worker // 4 + 1}",
                    "pid": 6000 + worker + 100 * sitting,
                    "rss": int((40 + size * draw.uniform(1, 1.6)) * 2**20),
                    "cpu_s": run_s * draw.uniform(0.93, 1.0),
                }
                runner = runners[sitting][worker // 4]
                if draw.random() < 0.04:
                    cause, number = draw.choice(causes)
                    report = {
                        "cause": cause,
                        "exit_signal": number,
                        "exit_code": None,
                        "stack": 'Current thread 0x00007f (most recent call first):\n  File "ising.py", line 42',
                    }
                    maker.outcome(point, runner, start, run_s, status="failed", error=cause, report=report, **common)
                    continue
                order = max(0.0, 1 - (temperature / (2.27 + 2 / size)) ** 4) ** 0.125 + draw.gauss(0, 0.01)
                result = {
                    "magnetisation": order,
                    "magnetisation_error": 0.01 + 0.02 * draw.random(),
                    "energy": -2 / (1 + (temperature / 2.6) ** 4) + draw.gauss(0, 0.01),
                    "steps": int(10 ** draw.uniform(2, 6)),
                }
                maker.outcome(point, runner, start, run_s, result=result, **common)
    maker.note("warning", "numpy is 2.1.0, and was 2.0.2")
    maker.close()


def many_store(path: Path, count: int = 50_000, workers: int = 24) -> None:
    """Very many short jobs, two swept parameters, some failures of many causes."""
    draw = random.Random(1)
    maker = StoreMaker(path, "many", parameters=["x", "mode"], varying=["x", "mode"])
    runner = maker.runner(0, count * 0.145 / workers, workers=workers)
    clocks = [0.0] * workers
    modes = ("exact", "fast", "rough")
    for place in range(count):
        worker = place % workers
        run_s = 0.1 * draw.lognormvariate(0, 0.8)
        point = maker.point({"x": place / 100, "mode": modes[place % 3]})
        start = clocks[worker]
        clocks[worker] += run_s + 0.002
        common: dict[str, Any] = {"pid": 7000 + worker, "rss": int(2**20 * draw.lognormvariate(4, 0.3))}
        if draw.random() < 0.01:
            maker.outcome(
                point, runner, start, run_s, status="failed", error=f"ValueError: bad value {place}", **common
            )
        else:
            y = (place / count) ** 2 + modes.index(modes[place % 3]) + draw.gauss(0, 0.05)
            maker.outcome(point, runner, start, run_s, result={"y": y, "cost": run_s**2, "n": place % 7}, **common)
    maker.close()


def write_rows(path: Path, rows: Sequence[tuple[Mapping[str, Any], Any]], **fields: Any) -> None:
    """A batch whose points are done, a second each, one after the other: ``(parameters, result)``."""
    names = list(dict.fromkeys(name for parameters, _ in rows for name in parameters))
    maker = StoreMaker(path, **{"parameters": names, "varying": names, **fields})
    runner = maker.runner(0, len(rows))
    seen: dict[str, int] = {}
    for place, (parameters, result) in enumerate(rows):
        text = json.dumps(parameters, sort_keys=True)
        replicate = seen[text] = seen.get(text, -1) + 1
        maker.outcome(maker.point(parameters, replicate=replicate), runner, float(place), 1.0, result=result)
    maker.close()

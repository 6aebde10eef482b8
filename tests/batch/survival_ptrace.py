"""Kills a process at each system call of a commit, one after another, and looks at the store that it leaves.

A program of its own, because it forks: ``python survival_ptrace.py CASE wal|journal STEP DIRECTORY`` runs one of
`CASES`, and ends with exit code 0, or with the first store that was not as it should be.

For each n: a child is forked, does what comes before, is stopped at each entry to and exit from a system call from then
on, and killed at the n-th such stop; until one comes through.  A call at whose entry it is killed is not made.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from jobrunner.batch import Batch, sweep
from jobrunner.batch.ledger import Entry, EntryBox, _Writer
from jobrunner.batch.registry import Resumption, register
from jobrunner.batch.store import Store
from jobrunner.batch.work import Claimed
from jobrunner.errors import SpecError, StoreError
from jobrunner.executors.inline import InlineExecutor
from jobrunner.storage.connection import connect
from tests.batch.survival_batch import copy_store, query

_TRACEME, _SYSCALL, _SETOPTIONS = 0, 24, 0x4200
_TRACESYSGOOD, _EXITKILL = 0x1, 0x100000
#: Ends the program with this if the system allows no tracing.
NOT_ALLOWED = 77


def _ptrace(request: int, pid: int, data: int = 0) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    library.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    library.ptrace.restype = ctypes.c_long
    if library.ptrace(request, pid, None, data) == -1:
        number = ctypes.get_errno()
        raise PermissionError(number, f"ptrace: {os.strerror(number)}")


def begin_tracing() -> None:
    """Called in the child: each system call after this one counts."""
    _ptrace(_TRACEME, 0)
    os.kill(os.getpid(), signal.SIGSTOP)


def kill_at(stop: int, child: Callable[[], None]) -> bool:
    """Run `child` in a process that is killed at its n-th stop; False: it came to its end."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            child()
            code = 0
        except PermissionError:
            code = NOT_ALLOWED
        except BaseException:  # a child must not go on as its parent
            traceback.print_exc()
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSTOPPED(status):
        try:
            _ptrace(_SETOPTIONS, pid, _TRACESYSGOOD | _EXITKILL)
        except PermissionError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            sys.exit(NOT_ALLOWED)
        seen = 0
        while os.WIFSTOPPED(status):
            if os.WSTOPSIG(status) == signal.SIGTRAP | 0x80:
                seen += 1
            if seen == stop:
                os.kill(pid, signal.SIGKILL)
            else:
                _ptrace(_SYSCALL, pid)
            status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        return True
    code = os.waitstatus_to_exitcode(status)
    if code == NOT_ALLOWED:
        sys.exit(NOT_ALLOWED)
    assert code == 0, code
    return False


def in_child(work: Callable[[], None]) -> None:
    """Do it in a process that is over afterwards, with its threads and its connections."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# --- what is done, and what is to be found ---


def double(x: int) -> int:
    return 2 * x


def batch_of(store: Path, points: int) -> Batch:
    return Batch(double, sweep(x=list(range(points))), name="doubles", store=store)


def run_to_the_end(store: Path, points: int) -> None:
    summary = batch_of(store, points).run(InlineExecutor())
    assert (summary.total, summary.done + summary.skipped) == (points, points), summary
    once = "SELECT count(*), count(DISTINCT point), min(status), max(status) FROM outcome"
    assert query(store, once) == [(points, points, "done", "done")]
    results = query(store, "SELECT o.result FROM point p JOIN outcome o ON o.id = p.outcome ORDER BY p.place")
    assert results == [(str(2 * x),) for x in range(points)], results


class Case:
    """One thing that is committed, from a store that is there before.

    Attributes:
        points: how many points the batch has when all is over.
        committed: shared with the child: whether it was told that the commit is on the disk.
    """

    points = 6

    def __init__(self, directory: Path) -> None:
        self.template = directory / "template"
        self.template.mkdir()
        self.store = directory / "jobrunner.db"
        self.committed = mmap.mmap(-1, 1)
        in_child(lambda: self.prepare(self.template / "jobrunner.db"))

    def prepare(self, store: Path) -> None:
        """Make what is there before."""

    def child(self) -> None:
        """Begin the tracing, commit, set `committed`, and close the store."""
        raise NotImplementedError

    def look(self, store: Path) -> str:
        """Whether the store has all or nothing: ``"all"`` or ``"nothing"``; else what it has."""
        raise NotImplementedError

    def read(self, store: Path) -> tuple[int, int]:
        """What the commands that only read it see: how many points there are, and how many of them are final."""
        with Store(store) as opened:
            counts = opened.counts(opened.batch("doubles"))
            return counts.total, counts.done

    def attempt(self, stop: int) -> bool:
        for ending in ("", "-wal", "-journal", "-shm"):
            Path(f"{self.store}{ending}").unlink(missing_ok=True)
        copy_store(self.template / self.store.name, self.store.parent)
        self.committed[0] = 0
        killed = kill_at(stop, self.child)
        in_child(self.verify)
        return killed

    def verify(self) -> None:
        copy = copy_store(self.store, self.store.parent / "copy")
        before = self.read(copy)  # first, for what writes would mend the store
        found = self.look(copy)
        assert found == "all" or (found == "nothing" and not self.committed[0]), (found, self.committed[0])
        assert query(copy, "PRAGMA integrity_check") == [("ok",)]
        assert self.read(copy) == before
        run_to_the_end(self.store, self.points)


class LedgerCommit(Case):
    """Two outcomes, two points taken up, and a sign of life, in one commit."""

    def prepare(self, store: Path) -> None:
        run_to_the_end(store, 1)

    def child(self) -> None:
        batch = batch_of(self.store, self.points)
        registration = batch._register(Resumption(), 2, lambda written, total: None)
        told: list[Any] = []
        with closing(connect(self.store, write=True)) as connection:
            runner = registration.runner
            number = registration.batch.id
            writer = _Writer(connection, self.store, number, runner, told.append, lambda *point: None, EntryBox())
            writer.asked = 2
            writer.write(beat=True)
            (claimed,) = (event for event in told if isinstance(event, Claimed))
            for work in claimed.works:
                result = str(2 * work.parameters["x"])
                columns = {"recorded_at": time.time(), "format": "json", "result": result}
                writer.box.add(Entry(work.id, "done", columns))
            writer.asked = 2
            begin_tracing()
            writer.write(beat=True)
            self.committed[0] = 1

    def look(self, store: Path) -> str:
        found = query(store, "SELECT status, count(*) FROM point GROUP BY status ORDER BY status")
        outcomes = query(store, "SELECT count(*) FROM outcome")[0][0]
        known = {
            (1, ("done", 1), ("leased", 2), ("pending", 3)): "nothing",
            (3, ("done", 3), ("leased", 2), ("pending", 1)): "all",
        }
        return known.get((outcomes, *found), f"{outcomes} outcomes, {found}")


class Growth(Case):
    """More points for a batch that is there, as a runner registers for it."""

    points = 40

    def prepare(self, store: Path) -> None:
        run_to_the_end(store, 3)

    def child(self) -> None:
        description = batch_of(self.store, self.points)._description()
        begin_tracing()
        with closing(connect(self.store, write=True, create=True)) as connection:
            register(connection, self.store, description, Resumption(), workers=2)
            self.committed[0] = 1

    def look(self, store: Path) -> str:
        if not query(store, "SELECT 1 FROM sqlite_master"):
            return "nothing"
        found = (
            query(store, "SELECT total FROM batch"),
            query(store, "SELECT count(*) FROM point")[0][0],
            query(store, "SELECT count(*) FROM runner")[0][0],
        )
        return {3: "nothing", 40: "all", 0: "nothing"}.get(found[1], "some") if self.whole(*found) else f"{found}"

    def whole(self, totals: list[tuple[int]], points: int, runners: int) -> bool:
        return (totals, points, runners) in (([(3,)], 3, 1), ([(40,)], 40, 2))


class Creation(Growth):
    """The first registration, which makes the file and the tables."""

    points = 40

    def prepare(self, store: Path) -> None:
        pass

    def read(self, store: Path) -> tuple[int, int]:
        try:
            return super().read(store)
        except (SpecError, StoreError):  # there is no batch yet, or no store
            return 0, 0

    def whole(self, totals: list[tuple[int]], points: int, runners: int) -> bool:
        return (totals, points, runners) in (([], 0, 0), ([(40,)], 40, 1))


@contextmanager
def on_network_file_system(wanted: bool) -> Iterator[None]:
    """Have stores use a rollback journal."""
    kind = "nfs4" if wanted else None
    with mock.patch("jobrunner.storage.connection.network_file_system", return_value=kind):
        yield


CASES = {"ledger": LedgerCommit, "growth": Growth, "creation": Creation}


def main(case: str, journal: str, step: int, directory: Path) -> None:
    with on_network_file_system(journal == "journal"):
        made = CASES[case](directory)
        stop = 1
        while made.attempt(stop):
            stop += step
    assert stop > 50, f"only {stop} stops: the commit was not traced"
    print(f"{case}, {journal}: {stop} stops")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))

"""The interpreter that one cell runs in; `benchmarks.faults.runner` starts it.

A pool of two workers: the healthy job A is known to run, then the faulty job and the healthy job B are submitted; when
the faulty one has ended, A is let go.  A job that changes state has a pool of one worker instead, and A before it, so
that what comes after it comes to the worker that it has changed.
"""

from __future__ import annotations

import json
import os
import resource
import select
import sys
from pathlib import Path
from typing import Any

from benchmarks.faults import jobs
from benchmarks.faults.expected import describe
from benchmarks.faults.matrix import FAULTS, Fault
from benchmarks.faults.peers import OURS, Driver, driver
from benchmarks.faults.settings import CannotSetUpError
from benchmarks.faults.stage import Stages

__all__ = ["HOLDS", "NOT_SET_UP", "main"]

HOLDS = "holds"
#: The trouble can't be made here: the row says nothing.
NOT_SET_UP = "not set up"

_TIME_LIMIT_S = 1.0
_MEMORY_LIMIT = "300MB"
#: How many jobs after the one that changes state look at it: the first may come to a spare worker.
_LOOKS = 3


class _WrongError(Exception):
    """The row doesn't hold: the verdict, in a few words, and what there is to know beyond it."""

    def __init__(self, verdict: str, detail: str = "") -> None:
        super().__init__(verdict)
        self.verdict = verdict
        self.detail = detail


class _Pipes:
    """Job A's pipes.  Both are held open for reading and writing, so that nobody's open blocks."""

    def __init__(self, directory: Path) -> None:
        self._fds = []
        for name in (jobs.ARRIVED, jobs.RELEASE):
            os.mkfifo(directory / name)
            self._fds.append(os.open(directory / name, os.O_RDWR | os.O_NONBLOCK))
        os.register_at_fork(after_in_child=self._let_go)

    def _let_go(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    def arrived(self, timeout_s: float) -> bool:
        """Whether A has said that it runs, waiting for it."""
        return bool(select.select([self._fds[0]], [], [], timeout_s)[0])

    def release(self) -> None:
        """Let A go on, however often it was started."""
        os.write(self._fds[1], b"." * 16)


class _Cell:
    """One fault in one peer's pool."""

    def __init__(self, fault: Fault, driven: Driver, directory: Path, stages: Stages) -> None:
        self.fault = fault
        self.driven = driven
        self.directory = directory
        self.stages = stages
        # Half of a stage for what should come: the other half is for a wait that doesn't keep its time.
        self.patience_s = stages.limit_s / 2

    def run(self) -> None:
        """Return if the row holds; else raise _WrongError with the first thing that went wrong."""
        if self.fault.needs_end and not self.driven.ends_running:
            raise _WrongError("can't end it", "no time limit, and no cancelling of what runs")
        self.stages.enter("can't be set up")
        try:
            self.fault.prepare(self.directory)
        except CannotSetUpError as error:
            raise _WrongError(NOT_SET_UP, str(error)) from None
        self.stages.enter("pool doesn't start")
        try:
            self.driven.peer.start()
        except BaseException as error:
            raise _WrongError("pool doesn't start", describe(error)) from None
        if self.fault.looks is None:
            self.beside()
        else:
            self.in_turn()
        self.stages.enter("close hangs")
        try:
            self.driven.peer.close()
        except BaseException as error:
            raise _WrongError("close fails", describe(error)) from None

    def beside(self) -> None:
        """The faulty job beside A, and before B."""
        pipes = _Pipes(self.directory)
        self.stages.enter("A doesn't start", self.patience_s)
        first = self.submit(jobs.healthy, str(self.directory), "A", True)
        if isinstance(first, _Refused) or not pipes.arrived(self.patience_s):
            raise _WrongError("A doesn't start", describe(first.error) if isinstance(first, _Refused) else "")
        with self.fault.while_submitting():
            self.stages.enter("submit hangs")
            faulty = self.submit_faulty()
            self.stages.enter("submit hangs")
            second = self.submit(jobs.healthy, str(self.directory), "B")
        self.await_faulty(faulty)
        pipes.release()
        self.expect(first, "A", "A is done")
        self.expect(second, "B", "B is done")
        self.expect_one_more()

    def in_turn(self) -> None:
        """The faulty job on the only worker; jobs before and after it look at what it changes."""
        assert self.fault.looks is not None
        self.expect(self.submit(jobs.healthy, str(self.directory), "A"), "A", "A is done")
        before = self.value(self.submit(self.fault.looks), "the job before")
        self.await_faulty(self.submit_faulty())
        for _ in range(_LOOKS):
            after = self.value(self.submit(self.fault.looks), "next job")
            if self.fault.seen(before, after):
                raise _WrongError("seen by the next job", f"before: {before!r}, after: {after!r}")
        self.expect(self.submit(jobs.healthy, str(self.directory), "B"), "B", "B is done")
        self.expect_one_more()

    # --- jobs ---

    def submit(self, function: Any, *args: Any, **limits: Any) -> Any:
        """Hand in a job; where that raises, the job's outcome is what it raised."""
        try:
            return self.driven.submit(function, *args, **limits)
        except BaseException as error:
            return _Refused(error)

    def submit_faulty(self) -> Any:
        """Hand in the faulty job, with the limits that it needs."""
        fault = self.fault
        return self.submit(
            jobs.started,
            str(self.directory),
            "faulty",
            fault.job,
            *fault.arguments(),
            time_limit=_TIME_LIMIT_S if fault.needs_end else None,
            memory_limit=_MEMORY_LIMIT if fault.hogs else None,
            options=fault.options,
        )

    def outcome(self, handle: Any, hangs: str, extra_s: float = 0.0) -> tuple[Any, BaseException | None]:
        """The result of a job, or what it raised."""
        if isinstance(handle, _Refused):
            return None, handle.error
        patience_s = self.patience_s + extra_s
        self.stages.enter(hangs, patience_s)
        if not self.driven.wait(handle, patience_s):
            raise _WrongError(hangs)
        try:
            return self.driven.result(handle), None
        except BaseException as error:
            return None, error

    def cancel(self, handle: Any) -> None:
        """End the faulty job where it can't be given a time limit."""
        try:
            self.driven.peer.cancel(handle)
        except BaseException as error:
            raise _WrongError("cancel fails", describe(error)) from None

    def await_faulty(self, handle: Any) -> None:
        """The faulty job has come to what is expected of it."""
        if self.fault.needs_end and not self.driven.limits_time and not isinstance(handle, _Refused):
            self.stages.enter("cancel hangs", _TIME_LIMIT_S)
            if not self.driven.wait(handle, _TIME_LIMIT_S):
                self.cancel(handle)
        result, error = self.outcome(handle, "hangs", self.fault.extra_s)
        verdict = self.fault.expected.judge(result, error, strict=self.driven.peer.name == OURS)
        if verdict is not None:
            raise _WrongError(verdict, describe(error) if error is not None else repr(result))

    def value(self, handle: Any, name: str) -> Any:
        """The result of a healthy job."""
        result, error = self.outcome(handle, f"{name} hangs")
        if error is not None:
            raise _WrongError(f"{name} lost", describe(error))
        return result

    def expect(self, handle: Any, name: str, value: Any) -> None:
        """A healthy job has run once, and has given the right result."""
        result = self.value(handle, name)
        if result != value:
            raise _WrongError(f"{name} has a wrong result", repr(result))

    def expect_one_more(self) -> None:
        """The pool takes another job, and no job was run twice."""
        handle = self.submit(jobs.healthy, str(self.directory), "one more")
        result, error = self.outcome(handle, "pool hangs")
        if error is not None or result != "one more is done":
            raise _WrongError("pool broken", describe(error) if error is not None else repr(result))
        starts = (self.directory / jobs.STARTED).read_text().splitlines()
        for name in dict.fromkeys(starts):
            if starts.count(name) > 1:
                raise _WrongError(f"{name} ran {'twice' if starts.count(name) == 2 else 'often'}", " ".join(starts))


class _Refused:
    """Stands for a job that was refused at submit."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def main() -> None:
    """Run the cell that the command line describes, as JSON, and write the verdict to the file it names."""
    order = json.loads(sys.argv[1])
    # Crashes are wanted here, their core files are not.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    fault, directory = FAULTS[order["fault"]], Path(order["directory"])
    stages = Stages(order["answer"], order["stage_s"])
    driven = driver(order["peer"], 2 if fault.looks is None else 1)
    try:
        _Cell(fault, driven, directory, stages).run()
    except _WrongError as error:
        stages.settle(error.verdict, error.detail)
        # Whether its pool can still be closed is not asked: the first thing that went wrong is known.
        sys.stdout.flush()
        os._exit(0)
    except BaseException as error:
        stages.settle("fails", describe(error))
        os._exit(0)
    stages.settle(HOLDS)

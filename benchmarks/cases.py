"""What is measured.

A case is a function that is given a peer, not yet started, and the scale, and returns one measurement in seconds; it
runs in an interpreter of its own (`benchmarks.sample`).  What the jobs run is importable from the standard library
(``operator.neg``), so that no peer pays for a function sent by value, nor for an import in its workers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import operator
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.peers import Peer
from benchmarks.work import read_line

__all__ = ["CASES", "Case", "Measurement", "Scale"]

_clock = time.perf_counter


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is run in a sample.

    round_trips, jobs, items: how many no-ops, one after the other, all at once, and through ``map``.
    settle_s: rest after the warm-up, for whatever a pool starts in the background.
    """

    round_trips: int = 2_000
    jobs: int = 10_000
    items: int = 500_000
    settle_s: float = 0.5

    @classmethod
    def quick(cls) -> Scale:
        """Enough to see that everything works; its figures mean nothing."""
        return cls(round_trips=20, jobs=100, items=1_000, settle_s=0.1)


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One sample's outcome.

    seconds: what was measured, for one job where there are many.
    note: what the figure alone doesn't say.
    """

    seconds: float
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One thing to measure.

    name: what it is called on the command line.
    title: what the figure says.
    unit: ``"s"``, ``"ms"``, ``"µs"``, or ``"/s"``: so many a second, where the measurement is the time of one.
    measure: takes the sample.
    applies: whether it makes sense for a peer.
    """

    name: str
    title: str
    unit: str
    measure: Callable[[Peer, Scale], Measurement]
    applies: Callable[[type[Peer]], bool] = lambda peer: True


@contextlib.contextmanager
def _warm(peer: Peer, scale: Scale) -> Iterator[None]:
    """The peer's pool, with every worker started and used."""
    peer.start()
    try:
        for _ in range(2):
            for handle in [peer.submit(time.sleep, 0.02) for _ in range(2 * peer.workers)]:
                peer.result(handle)
        for _ in range(50):
            peer.result(peer.submit(operator.neg, 1))
        time.sleep(scale.settle_s)
        yield
    finally:
        peer.close()


def _import(statement: str) -> Measurement:
    def run(code: str) -> float:
        began = _clock()
        subprocess.run([sys.executable, "-c", code], check=True)
        return _clock() - began

    run(statement)  # byte code and file cache
    bare = min(run("pass") for _ in range(3))
    full = min(run(statement) for _ in range(3))
    return Measurement(max(full - bare, 1e-6))


def import_module(peer: Peer, scale: Scale) -> Measurement:
    """``python -c 'import …'`` less ``python -c pass``."""
    return _import(f"import {peer.module}")


def import_executor(peer: Peer, scale: Scale) -> Measurement:
    """The same for the statement that really imports the executor, as some modules do so lazily."""
    return _import(peer.executor)


def cold_start(peer: Peer, scale: Scale) -> Measurement:
    """From making the pool to the first result; the executor is imported already."""
    exec(peer.executor, {})
    began = _clock()
    peer.start()
    peer.result(peer.submit(operator.neg, 1))
    seconds = _clock() - began
    peer.close()
    return Measurement(seconds)


def round_trip(peer: Peer, scale: Scale) -> Measurement:
    """The median time of a no-op handed in and waited for, on a warm pool."""
    times = []
    with _warm(peer, scale):
        for _ in range(scale.round_trips):
            began = _clock()
            peer.result(peer.submit(operator.neg, 1))
            times.append(_clock() - began)
    return Measurement(statistics.median(times))


def throughput(peer: Peer, scale: Scale) -> Measurement:
    """The time of a no-op among many that are handed in one by one, then waited for."""
    with _warm(peer, scale):
        began = _clock()
        handles = [peer.submit(operator.neg, number) for number in range(scale.jobs)]
        for handle in handles:
            peer.result(handle)
        seconds = _clock() - began
    return Measurement(seconds / scale.jobs)


def map_items(peer: Peer, scale: Scale) -> Measurement:
    """The time of an item of a no-op ``map``, its results taken in order."""
    with _warm(peer, scale):
        began = _clock()
        total = sum(peer.map(operator.neg, range(scale.items)))
        seconds = _clock() - began
    if total != -scale.items * (scale.items - 1) // 2:
        raise AssertionError("map() gave wrong results")
    return Measurement(seconds / scale.items)


class _Blocked:
    """A job that is certainly running, until it is released: it waits for a line from a named pipe.

    Opening the pipe for writing waits until the job has opened it for reading.  It waits for a line and not for the end
    of the file, which a worker forked meanwhile would put off: it holds the pipe open.
    """

    def __init__(self, peer: Peer, fifo: Path) -> None:
        os.mkfifo(fifo)
        self.handle = peer.submit(read_line, str(fifo))
        self._writer = os.open(fifo, os.O_WRONLY)

    def release(self) -> None:
        """Let it return, if it is still there."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._writer, b"released\n")
        os.close(self._writer)


def cancel(peer: Peer, scale: Scale) -> Measurement:
    """From cancelling a running job until its slot has run the next; all other slots run a job of their own."""
    with tempfile.TemporaryDirectory() as directory, _warm(peer, scale):
        beside = [_Blocked(peer, Path(directory, f"beside-{number}")) for number in range(peer.workers - 1)]
        victim = _Blocked(peer, Path(directory, "victim"))
        began = _clock()
        peer.cancel(victim.handle)
        peer.result(peer.submit(operator.neg, 1))
        seconds = _clock() - began
        victim.release()
        kept = 0
        for job in beside:
            job.release()
            with contextlib.suppress(Exception):
                kept += peer.result(job.handle, 10.0) == "released\n"
    if not beside:
        return Measurement(seconds)
    return Measurement(seconds, f"jobs beside it: {'kept' if kept == len(beside) else 'lost'}")


#: All cases by name, in the order in which they are shown.
CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case(name="import", title="import of the module", unit="ms", measure=import_module),
        Case(name="import_executor", title="import of the executor", unit="ms", measure=import_executor),
        Case(name="cold_start", title="new pool to first result", unit="ms", measure=cold_start),
        Case(name="round_trip", title="no-op round trip, warm", unit="µs", measure=round_trip),
        Case(name="throughput", title="no-ops submitted one by one", unit="/s", measure=throughput),
        Case(name="map", title="no-op items through map", unit="/s", measure=map_items),
        Case(
            name="cancel",
            title="cancel of a running job until its slot has run the next",
            unit="ms",
            measure=cancel,
            applies=lambda peer: peer.cancels and hasattr(os, "mkfifo"),
        ),
    )
}

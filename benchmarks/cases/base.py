"""What a case is, how much it runs, and what it answers."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import importlib.util
import operator
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks.peers import Peer
from benchmarks.units import UNITS, Unit
from benchmarks.work import read_line

__all__ = ["Blocked", "Case", "Figure", "Measured", "Scale", "blocked", "clock", "measured_everywhere", "needs", "warm"]

clock = time.perf_counter

# How long a job may take to start where a slot is free.
_START_S = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is run in a sample.

    round_trips, jobs, items: how many no-ops, one after the other, all at once, and through ``map``.  Peers that are
        slow run fewer: see `benchmarks.peers.Pace`.
    work_s: seconds of work on each core, for every job length, in all rounds together.
    rounds: how often pool and plain processes take turns; short and many, as the machine may change its speed.
    idle_s: seconds over which an idle pool is watched; it is left alone for half as long before.
    transfers: times that the smallest data are sent; larger ones less often.
    largest: bytes of the largest array.
    entries: entries of the large nested object.
    queued: jobs of the longest queue.
    settle_s: rest after the warm-up, for whatever a pool starts in the background.
    """

    round_trips: int = 2_000
    jobs: int = 10_000
    items: int = 500_000
    work_s: float = 0.2
    rounds: int = 4
    idle_s: float = 1.0
    transfers: int = 40
    largest: int = 256 << 20
    entries: int = 30_000
    queued: int = 1_000_000
    settle_s: float = 0.2

    @classmethod
    def quick(cls) -> Scale:
        """Enough to see that everything works; its figures mean nothing."""
        return cls(
            round_trips=20,
            jobs=100,
            items=1_000,
            work_s=0.02,
            rounds=1,
            idle_s=0.1,
            transfers=2,
            largest=1 << 20,
            entries=1_000,
            queued=1_000,
            settle_s=0.05,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """One of the numbers that a case gives.

    name: what it is called within its case; empty where it is the only one.
    title: what it says.
    unit: a name in `benchmarks.units.UNITS`.
    """

    name: str = ""
    title: str
    unit: str

    @property
    def how(self) -> Unit:
        """How its values are shown."""
        return UNITS[self.unit]


@dataclasses.dataclass(frozen=True)
class Measured:
    """One sample of a case.

    values: by the names of its figures; one may be missing where it can't be told.
    note: what the values alone don't say.
    """

    values: Mapping[str, float]
    note: str = ""


def measured_everywhere(peer: type[Peer]) -> str:
    """For cases without exception."""
    return ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One thing to measure.

    name: what it is called on the command line.
    figures: the numbers that it gives.
    measure: takes the sample of a peer.
    limit: takes the machine's, with so many processes: what no pool can do better; None where there is none.
    sitting: cases of one sitting are measured one after the other in one interpreter, with one pool, which is warm when
        they begin; without a sitting, alone and without a pool.
    skips: why a peer is not measured, or nothing.
    peer_turns: in how many turns of a run the peers are measured, where that takes long; jobrunner is in all.
    apart: peers that do something else than the others here: they are shown, but are never the best.
    limit_s: how long it may take.
    """

    name: str
    figures: tuple[Figure, ...]
    measure: Callable[[Peer, Scale], Measured]
    limit: Callable[[int, Scale], Measured] | None = None
    sitting: str = ""
    skips: Callable[[type[Peer]], str] = measured_everywhere
    peer_turns: int | None = None
    apart: frozenset[str] = frozenset()
    limit_s: float = 60.0


@contextlib.contextmanager
def warm(peer: Peer, scale: Scale) -> Iterator[None]:
    """The peer's pool, with every worker started and used."""
    peer.start()
    try:
        for _ in range(2):
            peer.run(time.sleep, [(0.02,)] * (2 * peer.workers))
        for _ in range(peer.pace.round_trips_of(50)):
            peer.result(peer.submit(operator.neg, 1))
        # Whatever a pool starts in the background tells nobody when it has.
        time.sleep(scale.settle_s)
        yield
    finally:
        peer.close()


class Blocked:
    """A job that is certainly running, until it is released: it waits for a line from a named pipe.

    The pipe can be opened for writing once the job has opened it for reading.  It waits for a line and not for the end
    of the file, which a worker forked meanwhile would put off: it holds the pipe open.

    Raises:
        TimeoutError: it doesn't start: the library waits with it for a slot that is busy, or for no good reason.
    """

    def __init__(self, peer: Peer, fifo: Path) -> None:
        os.mkfifo(fifo)
        self.handle = peer.submit(read_line, str(fifo))
        deadline = clock() + _START_S
        while True:
            try:
                self._writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
                break
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
            if clock() > deadline:
                raise TimeoutError(f"a job has not started after {_START_S:g} s although a slot is free")
            # Nothing else tells that a job of another library's runs, and a blocking open could wait for ever.
            time.sleep(0.001)

    def release(self) -> None:
        """Let it return, if it is still there."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._writer, b"released\n")
        os.close(self._writer)


def blocked(peer: Peer, directory: str, count: int) -> list[Blocked]:
    """As many blocked jobs, each in a slot of its own."""
    return [Blocked(peer, Path(directory, f"blocked-{number}")) for number in range(count)]


def needs(*modules: str) -> str:
    """Why a case can't be measured here, if one of these modules is missing."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return f"{' and '.join(missing)} not installed" if missing else ""

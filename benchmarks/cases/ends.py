"""What it takes until a slot works again whose job was cancelled, or has crashed; the others run jobs meanwhile."""

from __future__ import annotations

import contextlib
import operator
import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import machine
from benchmarks.cases.base import Blocked, Case, Figure, Measured, Scale, blocked, clock
from benchmarks.peers import Peer

__all__ = ["CASES"]

_WAIT_S = 15.0


@contextlib.contextmanager
def _beside(peer: Peer, directory: str, count: int, notes: list[str]) -> Iterator[None]:
    """Jobs in the other slots; a note tells what has become of them."""
    jobs = blocked(peer, directory, count) if peer.queues else []
    yield
    kept = sum(_kept(peer, job) for job in jobs)
    if jobs:
        notes.append(f"jobs beside it: {'kept' if kept == len(jobs) else 'lost'}")


def _kept(peer: Peer, job: Blocked) -> bool:
    job.release()
    with contextlib.suppress(Exception):
        return bool(peer.result(job.handle, 10.0) == "released\n")
    return False


def _cancel(peer: Peer, scale: Scale) -> Measured:
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as directory, _beside(peer, directory, peer.workers - 1, notes):
        victim = Blocked(peer, Path(directory, "victim"))
        began = clock()
        peer.cancel(victim.handle)
        peer.result(peer.submit(operator.neg, 1), _WAIT_S)
        seconds = clock() - began
        victim.release()
    return Measured({"": seconds}, "; ".join(notes))


def _crash(peer: Peer, scale: Scale) -> Measured:
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as directory, _beside(peer, directory, peer.workers - 1, notes):
        began = clock()
        victim = peer.submit(os._exit, 3)
        if peer.reports_crash:
            try:
                peer.result(victim, _WAIT_S)
            except Exception as error:
                # Each library has a time-out of its own.
                if "Timeout" in type(error).__name__:
                    raise
                notes.append(type(error).__name__)
        else:
            notes.append("its result never comes")
        anew = peer.mend()
        peer.result(peer.submit(operator.neg, 1), _WAIT_S)
        seconds = clock() - began
    if anew:
        notes.append("the pool made anew")
    return Measured({"": seconds}, "; ".join(notes))


def _end_of_process(workers: int, scale: Scale) -> Measured:
    return Measured({"": statistics.median(machine.end_of_process() for _ in range(5))})


def _cannot_cancel(peer: type[Peer]) -> str:
    return _cannot_block(peer) or ("" if peer.cancels else "can't end a running job")


def _cannot_block(peer: type[Peer]) -> str:
    return "" if hasattr(os, "mkfifo") else "needs named pipes"


CASES = (
    Case(
        name="cancel",
        figures=(
            Figure(
                title="cancel of a running job until its slot has run the next; limit: SIGKILL until reaped", unit="ms"
            ),
        ),
        measure=_cancel,
        limit=_end_of_process,
        sitting="calls",
        skips=_cannot_cancel,
    ),
    Case(
        name="crash",
        figures=(
            Figure(
                title="job handed in that calls os._exit until its slot has run the next; limit: SIGKILL until reaped",
                unit="ms",
            ),
        ),
        measure=_crash,
        limit=_end_of_process,
        sitting="calls",
        skips=_cannot_block,
    ),
)

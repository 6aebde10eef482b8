"""What many jobs cost that wait; every worker has a job meanwhile that waits for a named pipe."""

from __future__ import annotations

import functools
import gc
import operator
import os
import statistics
import tempfile

import psutil

from benchmarks.cases.base import Case, Figure, Measured, Scale, blocked, clock
from benchmarks.peers import Peer

__all__ = ["CASES", "LENGTHS"]

#: Jobs in the queue, by name.
LENGTHS: dict[str, int] = {"1k": 1_000, "10k": 10_000, "100k": 100_000, "1M": 1_000_000}

# No more rounds are begun after so long.
_ROUNDS_S = 1.0
# From here on, each of the peers is measured once.
_LONG = 100_000


def _queue(length: int, peer: Peer, scale: Scale) -> Measured:
    # Short queues several times: they are over soon, and the first is as good for the memory as any.
    most = 1 if peer.assigns_ahead else min(5, max(1, 10_000 // length))
    until = clock() + _ROUNDS_S
    rounds = [_round(min(length, scale.queued), peer)]
    while len(rounds) < most and clock() < until:
        rounds.append(_round(min(length, scale.queued), peer))
    submit, drain, memory = zip(*rounds, strict=True)
    return Measured({"submit": statistics.median(submit), "drain": statistics.median(drain), "memory": memory[0]})


def _round(jobs: int, peer: Peer) -> tuple[float, float, float]:
    """For a job: seconds to hand it in, seconds to run it, and bytes."""
    me = psutil.Process()
    with tempfile.TemporaryDirectory() as directory:
        running = blocked(peer, directory, peer.workers)
        gc.collect()
        before = me.memory_info().rss
        began = clock()
        handles = [peer.submit(operator.neg, number) for number in range(jobs)]
        submitted = clock() - began
        grown = me.memory_info().rss - before
        began = clock()
        for job in running:
            job.release()
        peer.results(handles)
        drained = clock() - began
    return submitted / jobs, drained / jobs, max(grown, 0) / jobs


def _skips(length: int, peer: type[Peer]) -> str:
    if not hasattr(os, "mkfifo"):
        return "needs named pipes"
    if not peer.queues:
        return "hands in a batch and waits for it"
    return "" if length <= peer.queue_limit else f"takes too long beyond {peer.queue_limit:,}"


def _case(name: str, length: int) -> Case:
    return Case(
        name=f"queue_{name}",
        figures=(
            Figure(name="submit", title=f"{length:,} no-ops handed in while all workers are busy, a job", unit="µs"),
            Figure(name="drain", title="... then from their release until all are done, a job", unit="µs"),
            Figure(name="memory", title="... memory (RSS) that the caller has taken for them, a job", unit="kB"),
        ),
        measure=functools.partial(_queue, length),
        sitting=f"queue_{name}",
        skips=functools.partial(_skips, length),
        peer_turns=1 if length >= _LONG else None,
        limit_s=60.0 if length < 1_000_000 else 180.0,
    )


CASES = tuple(_case(name, length) for name, length in LENGTHS.items())

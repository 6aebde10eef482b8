"""What it takes until a pool can be used."""

from __future__ import annotations

import operator
import statistics
import subprocess
import sys

from benchmarks.cases.base import Case, Figure, Measured, Scale, clock
from benchmarks.peers import Peer

__all__ = ["CASES"]


def _run(code: str) -> float:
    began = clock()
    subprocess.run([sys.executable, "-c", code], check=True)
    return clock() - began


def _import(statement: str) -> Measured:
    _run(statement)  # byte code and file cache
    return Measured({"": max(_run(statement) - _run("pass"), 1e-6)})


def _import_module(peer: Peer, scale: Scale) -> Measured:
    return _import(f"import {peer.module}")


def _import_executor(peer: Peer, scale: Scale) -> Measured:
    return _import(peer.executor)


def _cold_start(peer: Peer, scale: Scale) -> Measured:
    exec(peer.executor, {})
    began = clock()
    peer.start()
    peer.result(peer.submit(operator.neg, 1))
    seconds = clock() - began
    peer.close()
    return Measured({"": seconds})


def _interpreter_start(workers: int, scale: Scale) -> Measured:
    _run("pass")
    return Measured({"": statistics.median(_run("pass") for _ in range(3))})


CASES = (
    Case(
        name="import",
        figures=(Figure(title="import of the module: python -c 'import …' less python -c pass", unit="ms"),),
        measure=_import_module,
    ),
    Case(
        name="import_executor",
        figures=(
            Figure(title="the same for the statement that really imports the executor: some import lazily", unit="ms"),
        ),
        measure=_import_executor,
    ),
    Case(
        name="cold_start",
        figures=(
            Figure(
                title="new pool to first result, its module imported; limit: python -c pass (a fork takes less)",
                unit="ms",
            ),
        ),
        measure=_cold_start,
        limit=_interpreter_start,
    ),
)

"""Runs cells, each in a fresh interpreter, and ends whatever they leave."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from benchmarks.faults.cell import HOLDS, NOT_SET_UP
from benchmarks.faults.matrix import Fault
from benchmarks.peers import Peer

__all__ = ["Matrix", "Outcome", "run"]

_ROOT = Path(__file__).resolve().parents[2]
_CODE = "from benchmarks.faults.cell import main; main()"
#: Set in the environment of a cell, so that what it starts is known by it.
_MARK = "BENCHMARKS_FAULTS_CELL"
#: A stage of a cell may take this part of the time for the cell.
_STAGE = 0.4
#: How long processes may take to leave after their caller.
_LEAVE_S = 4.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a cell.

    verdict: ``"holds"``, or the first thing that went wrong, in a few words.
    detail: what there is to know beyond it.
    seconds: how long it took.
    """

    verdict: str
    detail: str = ""
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether nothing went wrong."""
        return self.verdict == HOLDS

    @property
    def counts(self) -> bool:
        """Whether the trouble could be made at all."""
        return self.verdict != NOT_SET_UP


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matrix:
    """A run: its faults and peers in the order asked for, and the outcomes by the names of both."""

    faults: Sequence[Fault]
    peers: Sequence[type[Peer]]
    timeout_s: float
    outcomes: dict[tuple[str, str], Outcome] = dataclasses.field(default_factory=dict)

    def held(self, peer: type[Peer]) -> int:
        """How many rows hold for a peer."""
        return sum(self.outcomes[fault.name, peer.name].holds for fault in self.faults)

    def counted(self, peer: type[Peer]) -> int:
        """How many rows say anything about it."""
        return sum(self.outcomes[fault.name, peer.name].counts for fault in self.faults)


def run(
    faults: Sequence[Fault],
    peers: Sequence[type[Peer]],
    *,
    timeout_s: float,
    at_a_time: int = 1,
    logs: Path | None = None,
    on_cell: Callable[[Fault, type[Peer], Outcome], object] = lambda fault, peer, outcome: None,
) -> Matrix:
    """Run every fault in every peer.

    Args:
        faults: the rows.
        peers: the columns: libraries, installed.
        timeout_s: how long a cell may take.
        at_a_time: how many cells run at a time.
        logs: a directory that keeps what the cells said.
        on_cell: told after each cell.
    """
    matrix = Matrix(faults=faults, peers=peers, timeout_s=timeout_s)
    running: set[subprocess.Popen[bytes]] = set()
    with concurrent.futures.ThreadPoolExecutor(at_a_time) as threads:
        cells = {
            threads.submit(_cell, fault, peer, timeout_s, logs, running): (fault, peer)
            for fault in faults
            for peer in peers
        }
        try:
            for done in concurrent.futures.as_completed(cells):
                fault, peer = cells[done]
                matrix.outcomes[fault.name, peer.name] = done.result()
                on_cell(fault, peer, done.result())
        except BaseException:
            # Interrupted: the cells that run are not waited for, but what they leave is still ended.
            threads.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.kill()
            raise
    return matrix


def _cell(
    fault: Fault, peer: type[Peer], timeout_s: float, logs: Path | None, running: set[subprocess.Popen[bytes]]
) -> Outcome:
    mark = uuid.uuid4().hex
    began = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        place = Path(name)
        directory, answer, said = place / "cell", place / "answer", place / "said"
        directory.mkdir()
        order = {
            "fault": fault.name,
            "peer": peer.name,
            "directory": str(directory),
            "answer": str(answer),
            "stage_s": timeout_s * _STAGE,
        }
        # A file, not a pipe: a process that is left over would keep a pipe open, and a flood would fill it.
        with said.open("w+b") as stream:
            process = subprocess.Popen(
                [sys.executable, "-c", _CODE, json.dumps(order)],
                cwd=_ROOT,
                env={**os.environ, _MARK: mark, "PYTHONPATH": _python_path()},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
            running.add(process)
            try:
                outcome = _await(process, answer, timeout_s + fault.extra_s)
                left = _left(process.pid, mark, wait_s=_LEAVE_S if outcome.holds else 0.0)
            finally:
                _end(process, mark)
                running.discard(process)
        if outcome.holds and left:
            outcome = Outcome(verdict="processes left", detail="; ".join(left))
        if logs is not None:
            shutil.copyfile(said, logs / f"{fault.name}-{re.sub('[^a-z]+', '-', peer.name.lower())}.log")
    return dataclasses.replace(outcome, seconds=round(time.monotonic() - began, 3))


def _python_path() -> str:
    # A worker that starts after a job has gone elsewhere must find the jobs all the same.
    return os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))


def _await(process: subprocess.Popen[bytes], answer: Path, timeout_s: float) -> Outcome:
    try:
        code = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        code = None
    try:
        outcome = Outcome(**json.loads(answer.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return Outcome(verdict="fails", detail=f"the cell has left no answer; exit code {code}")
    if code is None:
        detail = f"not over after {timeout_s:g} s"
        return Outcome(verdict="exit hangs" if outcome.holds else outcome.verdict, detail=detail)
    if code < 0:
        return Outcome(verdict="caller died", detail=f"of signal {-code}; {outcome.verdict}")
    if code > 0 and outcome.holds:
        return Outcome(verdict="exit hangs", detail=f"exit code {code}")
    return outcome


def _left(session: int, mark: str, wait_s: float) -> list[str]:
    """The processes that a cell has left, in words, when they have had the time to leave."""
    deadline = time.monotonic() + wait_s
    while (found := _processes(session, mark)) and time.monotonic() < deadline:
        psutil.wait_procs(found, timeout=0.1)
    words = []
    for process in found:
        with contextlib.suppress(psutil.Error):
            words.append(" ".join(process.cmdline())[:100])
    return words


def _processes(session: int, mark: str) -> list[psutil.Process]:
    """The live processes of a session, or with a mark in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if os.getsid(process.pid) == session or process.environ().get(_MARK) == mark:
                found.append(process)
    return found


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    """End a cell and all that it has left."""
    deadline = time.monotonic() + 10.0
    while (found := _processes(process.pid, mark)) and time.monotonic() < deadline:
        for each in found:
            with contextlib.suppress(psutil.Error):
                each.send_signal(signal.SIGKILL)
        psutil.wait_procs([each for each in found if each.pid != process.pid], timeout=1.0)
    process.wait()

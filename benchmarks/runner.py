"""Plans the samples of a run, and takes each in a fresh interpreter.

The peers take turns: every case is measured once for each of them before it is measured again, and each round begins
with another peer, so that a machine that slows down meanwhile slows all of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.cases import Case, Measurement, Scale
from benchmarks.peers import Peer

__all__ = ["Run", "Series", "run"]

_ROOT = Path(__file__).resolve().parents[1]
_CODE = "from benchmarks.sample import main; main()"
# How long a sample may take.
_LIMIT_S = 120.0


@dataclasses.dataclass
class Series:
    """The samples of one case for one peer.

    measurements: those that were taken, in order.
    dates: when each began, UTC epoch seconds.
    errors: what samples that failed said last.
    """

    case: Case
    peer: type[Peer]
    measurements: list[Measurement] = dataclasses.field(default_factory=list)
    dates: list[float] = dataclasses.field(default_factory=list)
    errors: list[str] = dataclasses.field(default_factory=list)

    @property
    def seconds(self) -> list[float]:
        """What was measured."""
        return [measurement.seconds for measurement in self.measurements]

    @property
    def notes(self) -> list[str]:
        """The notes that the samples came with, each once."""
        return list(dict.fromkeys(measurement.note for measurement in self.measurements if measurement.note))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run: its series, by case and peer in the order asked for, and how it was made."""

    series: Sequence[Series]
    workers: int
    repeats: int
    scale: Scale
    began: float
    load: tuple[float, float, float] | None


def run(
    cases: Sequence[Case],
    peers: Sequence[type[Peer]],
    *,
    workers: int,
    repeats: int,
    scale: Scale,
    on_sample: Callable[[Series], object] = lambda series: None,
) -> Run:
    """Measure every case for every peer that it applies to.

    Args:
        cases: what to measure.
        peers: the libraries, installed.
        workers: workers of each pool.
        repeats: samples of each series.
        scale: how much a sample runs.
        on_sample: told after each sample.
    """
    began = time.time()
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    table = {(case.name, peer.name): Series(case, peer) for case in cases for peer in peers if case.applies(peer)}
    for series in _turns(cases, peers, repeats, table):
        series_began = time.time()
        measured = _sample(series, workers, scale)
        if isinstance(measured, Measurement):
            series.measurements.append(measured)
            series.dates.append(series_began)
        else:
            series.errors.append(measured)
        on_sample(series)
    return Run(series=list(table.values()), workers=workers, repeats=repeats, scale=scale, began=began, load=load)


def _turns(
    cases: Sequence[Case], peers: Sequence[type[Peer]], repeats: int, table: dict[tuple[str, str], Series]
) -> Iterator[Series]:
    for turn in range(repeats):
        first = turn % len(peers)
        for case in cases:
            for peer in (*peers[first:], *peers[:first]):
                if (case.name, peer.name) in table:
                    yield table[case.name, peer.name]


def _sample(series: Series, workers: int, scale: Scale) -> Measurement | str:
    """Take one sample; if it fails, the last line that it said."""
    with tempfile.TemporaryDirectory() as directory:
        answer = Path(directory, "answer")
        order = {
            "case": series.case.name,
            "peer": series.peer.name,
            "workers": workers,
            "scale": dataclasses.asdict(scale),
            "answer": str(answer),
        }
        # Files, not pipes: a worker that is left over would keep a pipe open.
        with Path(directory, "said").open("w+b") as said:
            process = subprocess.Popen(
                [sys.executable, "-c", _CODE, json.dumps(order)],
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
            try:
                code = process.wait(_LIMIT_S)
            except subprocess.TimeoutExpired:
                return f"no result after {_LIMIT_S:g} s"
            finally:
                _end_session(process)
            if answer.exists() and code == 0:
                return Measurement(**json.loads(answer.read_text(encoding="utf-8")))
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {code}"


def _end_session(process: subprocess.Popen[bytes]) -> None:
    """End what a sample has left, so that the next one has the machine for itself."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()

"""Plans the samples of a run, and takes them in fresh interpreters.

The peers take turns: every sitting is taken once for each of them before it is taken again, and each round begins with
another peer, so that a machine that slows down meanwhile slows all of them.  The machine's limits are a turn like a
peer's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.cases import Case, Scale
from benchmarks.peers import MACHINE, OURS, Peer, settings_of, version_of
from benchmarks.results import Run, Series, machine_metadata
from jobrunner import packages

__all__ = ["planned", "run", "sittings"]

_ROOT = Path(__file__).resolve().parents[1]
_CODE = "from benchmarks.sample import main; main()"
# In the environment of a sitting, so that what it starts is known by it, whatever session that is in.
_MARK = "BENCHMARKS_SITTING"
# How long a pool may take to start and be warmed up, and to close.
_START_S, _CLOSE_S = 60.0, 5.0
# How long what a pool has started may go on after it.
_LEAVE_S = 0.5

# One thread for each process, as there are as many processes as cores; several would only be in each other's way.
_ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1")

_Table = dict[str, dict[str, list[Series]]]


def run(
    cases: Sequence[Case],
    peers: Sequence[type[Peer]],
    *,
    workers: int,
    repeats: int,
    scale: Scale,
    on_sample: Callable[[str, str], object] = lambda case, peer: None,
) -> Run:
    """Measure every case for every peer that it applies to, and the machine's limit.

    Args:
        cases: what to measure.
        peers: the libraries, installed.
        workers: workers of each pool.
        repeats: samples of each series.
        scale: how much a sample runs.
        on_sample: told the case and the peer after each sample.
    """
    metadata = {
        **machine_metadata(),
        "workers": workers,
        "repeats": repeats,
        **{f"scale_{name}": value for name, value in dataclasses.asdict(scale).items()},
    }
    for module in ("numpy", "qiskit"):
        version = packages.version_of(module)
        if version:
            metadata[f"{module}_version"] = version
    names = [peer.name for peer in peers]
    table: _Table = {case.name: _series(case, peers) for case in cases}
    for turn in range(repeats):
        for sitting in sittings(cases):
            for name in _rotated([*names, MACHINE], turn):
                chosen = [case for case in sitting if _measured(table[case.name].get(name), case, name, turn)]
                for case, answer in _sit(chosen, name, workers, scale):
                    _record(table[case.name][name], answer)
                    on_sample(case.name, name)
    # As they are shown: figure by figure.
    series = [
        table[case.name][name][place]
        for case in cases
        for place in range(len(case.figures))
        for name in (*names, MACHINE)
        if name in table[case.name]
    ]
    return Run(
        series=[each for each in series if each.values or each.errors or each.skipped],
        peers={peer.name: (version_of(peer), settings_of(peer)) for peer in peers},
        metadata=metadata,
    )


def planned(cases: Sequence[Case], peers: Sequence[type[Peer]], repeats: int) -> int:
    """How many samples a run takes."""
    total = 0
    for case in cases:
        for name, series in _series(case, peers).items():
            total += sum(_measured(series, case, name, turn) for turn in range(repeats))
    return total


def sittings(cases: Sequence[Case]) -> Iterator[list[Case]]:
    """The cases by their sittings; those without, one by one."""
    grouped: dict[str, list[Case]] = {}
    for case in cases:
        grouped.setdefault(case.sitting or case.name, []).append(case)
    yield from grouped.values()


def _series(case: Case, peers: Sequence[type[Peer]]) -> dict[str, list[Series]]:
    """The case's series, still empty, by peer; the machine's, if there is a limit and anybody to be held against it."""
    reasons = {peer.name: case.skips(peer) for peer in peers}
    if case.limit is not None and not all(reasons.values()):
        reasons[MACHINE] = ""
    return {
        name: [Series(case, figure, name, skipped=reason) for figure in case.figures]
        for name, reason in reasons.items()
    }


def _rotated(names: list[str], turn: int) -> list[str]:
    first = turn % len(names)
    return [*names[first:], *names[:first]]


def _measured(series: list[Series] | None, case: Case, name: str, turn: int) -> bool:
    """Whether a peer's turn is taken."""
    if series is None or series[0].skipped:
        return False
    if name in {OURS, MACHINE}:
        return True
    # What fails, or hangs, at first would only cost time again.
    hopeless = bool(series[0].errors) and not any(each.values for each in series)
    return not hopeless and (case.peer_turns is None or turn < case.peer_turns)


def _record(series: Sequence[Series], answer: dict[str, Any]) -> None:
    for each in series:
        if "error" in answer:
            _add(each.errors, answer["error"])
            continue
        value = answer["values"].get(each.figure.name)
        if value is not None:
            each.values.append(value)
            each.dates.append(answer["began"])
            _add(each.notes, answer["note"])


def _add(notes: list[str], note: str) -> None:
    if note and note not in notes:
        notes.append(note)


def _sit(cases: Sequence[Case], peer: str, workers: int, scale: Scale) -> Iterator[tuple[Case, dict[str, Any]]]:
    """The samples of a sitting; where its interpreter ends before all are taken, the rest in another."""
    left = list(cases)
    while left:
        answers, said = _interpreter(left, peer, workers, scale)
        for case in list(left):
            if not answers:
                # The pool does not even start.
                answer = {"error": said or "no answer"}
            elif case.name in answers:
                answer = answers[case.name]
            else:
                break
            if "values" not in answer and "error" not in answer:
                answer["error"] = said or "its interpreter ended"
            yield case, answer
            left.remove(case)


def _interpreter(cases: Sequence[Case], peer: str, workers: int, scale: Scale) -> tuple[dict[str, dict[str, Any]], str]:
    """What an interpreter answered, by case, and what it said last."""
    limit_s = _START_S + sum(case.limit_s for case in cases) + 2 * _CLOSE_S
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as directory:
        answer = Path(directory, "answer")
        order = {
            "cases": [case.name for case in cases],
            "peer": peer,
            "workers": workers,
            "scale": dataclasses.asdict(scale),
            "answer": str(answer),
            "start_s": _START_S,
            "close_s": _CLOSE_S,
        }
        # Files, not pipes: a worker that is left over would keep a pipe open.
        with Path(directory, "said").open("w+b") as said:
            process = subprocess.Popen(
                [sys.executable, "-c", _CODE, json.dumps(order)],
                cwd=_ROOT,
                env={**os.environ, **_ENVIRONMENT, _MARK: mark, "PYTHONPATH": _python_path(), "TMPDIR": directory},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
            reason = ""
            try:
                process.wait(limit_s)
            except subprocess.TimeoutExpired:
                reason = f"no result after {limit_s:g} s"
            finally:
                _end(process, mark)
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
        answers: dict[str, dict[str, Any]] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in answer.read_text(encoding="utf-8").splitlines():
                each = json.loads(line)
                answers.setdefault(each["case"], {}).update(each)
    return answers, reason or _reason(lines)


def _python_path() -> str:
    return os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))


def _reason(lines: list[str]) -> str:
    """Why an interpreter ended early, from what it said."""
    timeout = next((line for line in lines if line.startswith("Timeout (")), None)
    if timeout is not None:
        # "Timeout (0:00:30)!", then the stacks of all threads.
        return f"no result after {timeout[len('Timeout (') :].rstrip(')!')}"
    return lines[-1][:200] if lines else ""


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    """End what a sitting has left, so that the next one has the machine for itself."""
    if process.poll() is not None:
        # Those that clear up after others leave by themselves, once they have.
        psutil.wait_procs(_left(process.pid, mark), timeout=_LEAVE_S)
    deadline = time.monotonic() + 10.0
    while (found := _left(process.pid, mark)) and time.monotonic() < deadline:
        for each in found:
            with contextlib.suppress(psutil.Error):
                each.send_signal(signal.SIGKILL)
        psutil.wait_procs([each for each in found if each.pid != process.pid], timeout=1.0)
    process.kill()
    process.wait()
    # What trackers that were killed would have removed.
    for pattern in (f"joblib_memmapping_folder_{process.pid}_*", f"sem.loky-{process.pid}-*"):
        for path in Path("/dev/shm").glob(pattern):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _left(session: int, mark: str) -> list[psutil.Process]:
    """The live processes of a sitting: of its session, or with its mark."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if os.getsid(process.pid) == session or process.environ().get(_MARK) == mark:
                found.append(process)
    return found

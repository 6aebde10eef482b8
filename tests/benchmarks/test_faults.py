"""The fault matrix lists what it must, runs for jobrunner and its peers, and judges rightly.

That all of its rows hold for jobrunner is `test_every_row_holds_for_jobrunner`, which takes a while.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults.expected import Expected, describe
from benchmarks.faults.matrix import FAULTS
from benchmarks.faults.objects import UnprintableError
from benchmarks.faults.report import as_json, as_markdown
from benchmarks.faults.runner import Matrix, Outcome
from benchmarks.peers import PEERS
from jobrunner import WorkerDiedError
from tests.core.process_table import describe as describe_processes
from tests.core.process_table import live_with_variable

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the cells meet their jobs at named pipes")

#: What each group must have at least.
GROUPS = {
    "death": {"segfault", "abort", "os-exit", "sys-exit", "sigkill", "sigterm", "sigstop", "stack-overflow"},
    "errors": {"keyboard-interrupt", "generator-exit", "base-exception", "unpicklable-error", "unloadable-error"},
    "serialization": {"unpicklable-argument", "unloadable-argument", "argument-exits", "argument-hangs"},
    "descriptors": {"close-all", "close-standard", "write-garbage", "use-up-descriptors", "flood-stdout"},
    "processes": {"fork-exits", "fork-returns", "child-left", "daemon-left", "thread-left"},
    "hangs": {"sleep", "swallow", "ignore-signals", "regex", "gil", "deadlock"},
    "memory": {"memory-hog", "child-hogs"},
    "state": {"directory", "environment", "signal-handler", "warnings", "stdout-closed", "seed", "blas-threads"},
    "caller": {"tmp-gone", "tmp-full", "no-descriptors"},
}


#: In the environment of a run, and so of all that it starts.
MARK = "FAULTS_OF_A_TEST"


def _faults(*arguments: str, mark: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "160", MARK: mark},
        capture_output=True,
        text=True,
    )


def test_the_matrix_lists_what_it_must() -> None:
    found: dict[str, set[str]] = {}
    for name, fault in FAULTS.items():
        assert name == fault.name
        assert "," not in name
        assert fault.title
        found.setdefault(fault.group, set()).add(name)
    assert found.keys() == GROUPS.keys()
    assert not found.keys() & FAULTS.keys()  # --faults takes both
    for group, names in GROUPS.items():
        assert names <= found[group]


def test_the_list_names_every_fault() -> None:
    ran = _faults("--list")
    assert ran.returncode == 0
    lines = ran.stdout.splitlines()
    for fault in FAULTS.values():
        assert [f"{fault.group}:"] == [line for line in lines if line == f"{fault.group}:"]
        assert sum(line.split() == [fault.name, *fault.title.split()] for line in lines) == 1


def test_cells_run_in_peers_and_the_outcomes_are_written(tmp_path: Path) -> None:
    data, markdown, logs = tmp_path / "faults.json", tmp_path / "faults.md", tmp_path / "logs"
    logs.mkdir()
    chosen = ("--faults", "os-exit,unpicklable-result,child-left,sleep", "--peers", "concurrent.futures")
    files = ("--json", str(data), "--markdown", str(markdown), "--logs", str(logs))
    ran = _faults(*chosen, *files, "--cells", "2", mark=str(tmp_path))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stderr == ""  # no progress into a pipe
    document: dict[str, Any] = json.loads(data.read_text())
    verdicts = {
        fault["name"]: {peer: outcome["verdict"] for peer, outcome in fault["outcomes"].items()}
        for fault in document["faults"]
    }
    assert verdicts == {
        "os-exit": {"jobrunner": "holds", "concurrent.futures": "A lost"},
        "unpicklable-result": {"jobrunner": "holds", "concurrent.futures": "holds"},
        "child-left": {"jobrunner": "holds", "concurrent.futures": "processes left"},
        "sleep": {"jobrunner": "holds", "concurrent.futures": "can't end it"},
    }
    assert list(document["peers"]) == ["jobrunner", "concurrent.futures"]
    assert (document["peers"]["jobrunner"]["holds"], document["peers"]["jobrunner"]["of"]) == (4, 4)
    assert (document["peers"]["concurrent.futures"]["holds"], document["peers"]["concurrent.futures"]["of"]) == (1, 4)
    rows = markdown.read_text().splitlines()
    assert rows[0] == "# The fault matrix"
    assert "| the job … | jobrunner | concurrent.futures |" in rows
    assert "| calls os._exit(3) | holds | A lost |" in rows
    assert "| **holds** | **4 of 4** | **1 of 4** |" in rows
    assert "4 of 4" in ran.stdout
    assert len(list(logs.iterdir())) == 8
    # What a peer leaves is ended with its cell.
    left = live_with_variable(MARK, str(tmp_path))
    assert left == [], describe_processes(left)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--faults", "os-exit,nonsense"], "'nonsense' is none of death, errors"),
        (["--peers", "nonsense"], "'nonsense' is none of jobrunner, loky"),
        (["--faults", ","], "no name"),
        (["--timeout", "0"], "timeout"),
        (["nonsense"], "nonsense"),
    ],
)
def test_wrong_use_is_told(arguments: list[str], said: str) -> None:
    ran = _faults(*arguments)
    assert ran.returncode == 2
    assert said in " ".join(ran.stderr.split())
    assert "Traceback" not in ran.stderr


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_row_holds_for_jobrunner(tmp_path: Path) -> None:
    data = tmp_path / "faults.json"
    ran = _faults("--peers", "jobrunner", "--cells", "2", "--timeout", "60", "--json", str(data))
    outcomes = {fault["name"]: fault["outcomes"]["jobrunner"] for fault in json.loads(data.read_text())["faults"]}
    assert outcomes.keys() == FAULTS.keys()
    failed = {name: outcome for name, outcome in outcomes.items() if outcome["holds"] is False}
    assert failed == {}
    assert ran.returncode == 0, ran.stdout + ran.stderr


# --- the judgement ---


@pytest.mark.parametrize(
    ("expected", "result", "error", "ours", "others"),
    [
        (Expected(result="done"), "done", None, None, None),
        (Expected(result="done"), "other", None, "wrong result", "wrong result"),
        (Expected(result="done"), None, KeyError(), "fails: KeyError", "fails: KeyError"),
        (Expected(errors=("KeyError",)), None, None, "no error", "no error"),
        (Expected(errors=("KeyError",), returned="no limit"), "done", None, "no limit", "no limit"),
        (Expected(errors=("KeyError",)), None, KeyError(), None, None),
        (Expected(errors=("KeyError",)), None, IndexError(), "wrong error: IndexError", None),
        (Expected(result="done", errors=("KeyError",)), "done", None, None, None),
        (Expected(result="done", errors=("KeyError",)), None, KeyError(), None, None),
        (Expected(errors=("WorkerDiedError",), signal=9), None, WorkerDiedError(signal=9), None, None),
        (Expected(errors=("WorkerDiedError",), signal=9), None, WorkerDiedError(), "wrong signal: None", None),
        (Expected(errors=("WorkerDiedError",), exit_code=3), None, WorkerDiedError(), "wrong exit code: None", None),
    ],
)
def test_an_outcome_is_judged(
    expected: Expected, result: object, error: BaseException | None, ours: str | None, others: str | None
) -> None:
    assert expected.judge(result, error, strict=True) == ours
    assert expected.judge(result, error, strict=False) == others


def test_an_error_that_cannot_be_printed_is_described() -> None:
    assert describe(UnprintableError()) == "UnprintableError: (can't be printed)"


def test_a_row_that_cannot_be_set_up_does_not_count() -> None:
    faults = [FAULTS["tmp-full"], FAULTS["tmp-gone"]]
    peers = [PEERS["jobrunner"]]
    matrix = Matrix(faults=faults, peers=peers, timeout_s=1.0)
    matrix.outcomes["tmp-full", "jobrunner"] = Outcome(verdict="not set up", detail="not permitted")
    matrix.outcomes["tmp-gone", "jobrunner"] = Outcome(verdict="holds")
    assert (matrix.held(peers[0]), matrix.counted(peers[0])) == (1, 1)
    assert "**1 of 1**" in as_markdown(matrix)
    assert [fault["outcomes"]["jobrunner"]["holds"] for fault in as_json(matrix)["faults"]] == [None, True]

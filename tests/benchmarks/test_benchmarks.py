"""The benchmarks run, for every case and the peers that are installed, and a peer that fails or hangs is only noted.

No time is asserted: what the figures say is for a quiet machine.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks import __main__ as command
from benchmarks import runner
from benchmarks.cases import CASES, Scale
from benchmarks.peers import ALL_PEERS, MACHINE, OURS, PEERS, installed
from tests.core.process_table import describe, live_with_variable

ROOT = Path(__file__).resolve().parents[2]

#: In the environment of a run, and so of all that it starts.
MARK = "BENCHMARKS_OF_A_TEST"

needs_named_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="jobs wait at named pipes")


def _benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "160"},
        capture_output=True,
        text=True,
    )


def _lean_peers() -> list[str]:
    return [name for name, peer in PEERS.items() if installed(peer) and name != OURS]


def _cases() -> list[str]:
    # Of the queues, which are all alike when quick, two will do.
    return [name for name in CASES if name not in {"queue_10k", "queue_100k"}]


def _run_all(cases: Sequence[str], peers: Sequence[str], file: Path) -> None:
    """Run cases quickly, by us and by peers; all is measured that is not skipped."""
    peers = [OURS, *peers]
    ran = _benchmarks(*cases, "--peers", ",".join(peers), "--quick", "--repeats", "1", "--json", str(file))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    document: dict[str, Any] = json.loads(file.read_text())
    without = json.loads(document["metadata"]["without_values"])
    assert [each for each in without if each["errors"]] == []
    measured = {benchmark["metadata"]["case"] for benchmark in document["benchmarks"]}
    assert measured == {name for name in cases if not CASES[name].skips(PEERS[OURS])}
    # For each, all that are not skipped, with a reason.
    for name in measured:
        found = {b["metadata"]["peer"] for b in document["benchmarks"] if b["metadata"]["case"] == name}
        skipped = {peer for peer in peers if CASES[name].skips(PEERS[peer])}
        assert found - {MACHINE} == set(peers) - skipped, name
        assert (MACHINE in found) == (CASES[name].limit is not None), name
    notes = [b["metadata"]["notes"] for b in document["benchmarks"] if b["metadata"]["name"] == f"cancel/{OURS}"]
    assert [json.loads(each) for each in notes] == ([["jobs beside it: kept"]] if "cancel" in cases else [])
    assert "targets" in ran.stdout
    for peer in peers:
        assert f"{peer} " in ran.stdout


@pytest.mark.slow
@needs_named_pipes
@pytest.mark.parametrize("part", range(3))
def test_each_case_runs_and_each_lean_peer(part: int, tmp_path: Path) -> None:
    _run_all(_cases()[part::3], _lean_peers()[part::3], tmp_path / "results.json")


@pytest.mark.soak
@needs_named_pipes
def test_every_case_runs_for_every_lean_peer(tmp_path: Path) -> None:
    _run_all(_cases(), _lean_peers(), tmp_path / "results.json")


def test_cases_and_peers_are_chosen_and_nothing_is_said_into_a_pipe(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    chosen = ("round_trip", "--peers", "multiprocessing.Pool")
    ran = _benchmarks(*chosen, "--quick", "--repeats", "2", "--workers", "1", "--json", str(file))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stderr == ""
    document: dict[str, Any] = json.loads(file.read_text())
    assert document["metadata"]["workers"] == 1
    names = dict.fromkeys(benchmark["metadata"]["peer"] for benchmark in document["benchmarks"])
    assert list(names) == [OURS, "multiprocessing.Pool", MACHINE]
    for benchmark in document["benchmarks"]:
        assert benchmark["metadata"]["unit"] == "second"
        assert len(benchmark["runs"]) == 2
    # What was kept is shown again without measuring.
    again = _benchmarks("--load", str(file))
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout == ran.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "'nonsense' is none of import"),
        (["--peers", "nonsense"], "none of jobrunner, loky"),
        (["--peers", ","], "no name"),
        (["--workers", "0"], "workers"),
        (["--repeats", "0"], "repeats"),
        (["--json", "{tmp}/missing/results.json"], "can't be written"),
        (["--json", "{tmp}"], "is a directory"),
        (["--markdown", "{tmp}/missing/page.md"], "can't be written"),
        (["--plot", "{tmp}/file/plots"], "can't be written"),
        (["--load", "{tmp}/missing.json"], "does not exist"),
        (["--load", "{tmp}/file"], "Expecting value"),
        (["--load", "{tmp}/other.json"], "no results of this suite"),
    ],
)
def test_wrong_use_is_told_before_anything_is_measured(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "other.json").write_text("{}")
    monkeypatch.setattr(command, "run", lambda *args, **options: pytest.fail("it has begun to measure"))
    ran = CliRunner().invoke(command.main, [argument.format(tmp=tmp_path) for argument in arguments])
    assert ran.exit_code == 2, ran.output
    assert said in " ".join(ran.output.split())
    assert "Traceback" not in ran.output


def test_wrong_use_ends_the_command_without_a_traceback() -> None:
    ran = _benchmarks("nonsense")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "'nonsense' is none of import" in " ".join(ran.stderr.split())
    assert "Traceback" not in ran.stderr


def test_every_peer_tells_its_settings_and_why_it_is_skipped() -> None:
    for peer in ALL_PEERS.values():
        assert peer.executor
        for case in CASES.values():
            assert isinstance(case.skips(peer), str)
    assert CASES["cancel"].skips(ALL_PEERS["joblib"]) == "can't end a running job"
    assert "batch" in CASES["queue_1k"].skips(ALL_PEERS["joblib"])
    assert CASES["queue_1M"].skips(ALL_PEERS["dask"]).startswith("takes too long beyond")


# --- peers that go wrong: a module of loky's name stands in for it ---

_FAILS = """
def get_reusable_executor(max_workers):
    raise OSError("no pool today")
"""

_HANGS = """
import subprocess, sys, threading

def get_reusable_executor(max_workers):
    # In a session of its own, as daemons are.
    subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
    threading.Event().wait()
"""

_DIES = """
import concurrent.futures, os

def get_reusable_executor(max_workers, kill_workers=False, reuse=True):
    if kill_workers:
        print("killed the wrong one", flush=True)
        os._exit(7)
    return concurrent.futures.ThreadPoolExecutor(max_workers)
"""


def _stand_in(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loky.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv(MARK, str(tmp_path))


def _run(*cases: str, repeats: int = 1) -> dict[tuple[str, str], Any]:
    chosen = [CASES[name] for name in cases]
    ran = runner.run(chosen, [PEERS["loky"]], workers=1, repeats=repeats, scale=Scale.quick())
    return {(series.key, series.peer): series for series in ran.series}


def test_a_peer_that_fails_is_noted_and_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stand_in(_FAILS, tmp_path, monkeypatch)
    sampled: list[tuple[str, str]] = []
    ran = runner.run(
        [CASES["cold_start"]],
        [PEERS["loky"]],
        workers=1,
        repeats=2,
        scale=Scale.quick(),
        on_sample=lambda case, peer: sampled.append((case, peer)),
    )
    theirs, limit = ran.series
    assert (theirs.values, theirs.errors) == ([], ["OSError: no pool today"])
    assert len(limit.values) == 2
    assert sampled.count(("cold_start", "loky")) == 1


def test_a_peer_that_hangs_is_noted_and_what_it_has_started_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stand_in(_HANGS, tmp_path, monkeypatch)
    monkeypatch.setattr(runner, "_START_S", 1.0)
    found = _run("round_trip", "throughput")
    for case in ("round_trip", "throughput"):
        assert found[case, "loky"].errors == ["no result after 0:00:01"]
        assert len(found[case, MACHINE].values) == 1
    left = live_with_variable(MARK, str(tmp_path))
    assert left == [], describe(left)


@needs_named_pipes
def test_a_run_that_is_ended_ends_what_it_has_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    # jobrunner imports it too, and hangs as well.
    _stand_in(f"{_HANGS}\nopen({str(started)!r}, 'w').close()\nget_reusable_executor(1)", tmp_path, monkeypatch)
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "round_trip", "--peers", "loky", "--repeats", "1", "--quick"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        # Waits until a sample has opened it, too.
        started.open().close()
        running.terminate()
        assert running.wait() == 128 + signal.SIGTERM
    left = live_with_variable(MARK, str(tmp_path))
    assert left == [], describe(left)


@needs_named_pipes
def test_a_sitting_goes_on_after_a_case_that_ends_its_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stand_in(_DIES, tmp_path, monkeypatch)
    found = _run("cancel", "crash")
    assert found["cancel", "loky"].errors == ["killed the wrong one"]
    # A pool of threads dies with its job.
    assert found["crash", "loky"].errors == ["its interpreter ended"]

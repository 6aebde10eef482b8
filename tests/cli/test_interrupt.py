"""Ctrl-C and SIGTERM: what ends, what is kept, and the exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable

import psutil
import pytest

from tests.command_line import ROOT, CommandLine


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_ends_what_runs_and_keeps_what_is_done(
    command_line: CommandLine, meeting: Callable[[int], list[int]], number: signal.Signals, code: int
) -> None:
    process = command_line.start(
        *("run", "functions:meets", "-p", "x=0:9", "-p", "fifo=fifo", "--workers", "2", "--output", "out.jsonl")
    )
    pids = meeting(3)  # the first has ended, two run
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert not any(map(alive, pids))
    assert "Traceback" not in stderr
    assert "1 done, 0 failed, 9 not run" in stderr
    assert stdout.splitlines()[1].split() == ["x", "result"]
    assert stdout.splitlines()[2].split() == ["0", "0"]
    lines = (command_line.directory / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["status"] for line in lines] == ["done"]


def test_signals_in_a_row_kill_at_once(command_line: CommandLine, meeting: Callable[[int], list[int]]) -> None:
    process = command_line.start("run", "functions:meets", "-p", "x=1:9", "-p", "fifo=fifo", "--workers", "2")
    pids = meeting(2)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    psutil.wait_procs([psutil.Process(pid) for pid in pids if alive(pid)], timeout=60)
    assert not any(map(alive, pids))


SCRIPT = """
import os, signal, threading
from jobrunner.batch import StopRequest
from jobrunner.cli.interrupt import Interrupts

never = threading.Event()
def kill():
    print("killing", flush=True)
    {kill}

signal.signal(signal.SIGINT, signal.default_int_handler)
stop = StopRequest()
with Interrupts(stop, kill) as interrupts:
    os.kill(os.getpid(), signal.{first})
    while not stop.requested: pass
    print("stopping", interrupts.exit_code, flush=True)
    os.kill(os.getpid(), signal.{second})
    never.wait()
"""


@pytest.mark.parametrize("kill", ["pass", "never.wait()", "raise OSError('cannot')"])
def test_the_second_signal_exits_even_if_the_killing_hangs(kill: str) -> None:
    script = SCRIPT.format(kill=kill, first="SIGTERM", second="SIGINT")
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 130
    assert ran.stdout.split() == ["stopping", "143", "killing"]


HANDLERS = """
import signal
from jobrunner.batch import StopRequest
from jobrunner.cli.interrupt import Interrupts

signal.signal(signal.SIGINT, signal.SIG_IGN)
before = signal.getsignal(signal.SIGTERM)
with Interrupts(StopRequest(), print) as interrupts:
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is not before
assert signal.getsignal(signal.SIGTERM) is before
assert interrupts.exit_code is None
"""


def test_handlers_come_back_and_an_ignored_signal_stays_ignored() -> None:
    subprocess.run([sys.executable, "-c", HANDLERS], check=True, cwd=ROOT)


def test_ctrl_c_while_the_target_is_imported_exits_with_130(
    command_line: CommandLine, meeting: Callable[[int], list[int]]
) -> None:
    (command_line.directory / "slow.py").write_text("import functions\nfunctions.meets(1, 'fifo')\n")
    process = command_line.start("run", "slow:f")
    meeting(1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr

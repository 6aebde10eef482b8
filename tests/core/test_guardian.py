"""The guardian as a program of its own: it ends what its caller leaves behind, and removes its spool."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.core.process_table import await_death, is_alive
from tests.core.scripts import Script

_GUARDIAN = """
import jobrunner.executors.guardian as guardian
await_death = guardian._await_death

def told(caller):
    print("on guard", flush=True)
    await_death(caller)

guardian._await_death = told
"""
_WITHOUT_PIDFDS = "guardian.open_pidfd = lambda pid: None\n"

_CALLER = """
import os, signal, subprocess, sys
code, tag, spool = sys.argv[1:]
stay = "import signal; signal.pause()"
for lane in (tag, "another."):
    left = subprocess.Popen(
        [sys.executable, "-c", stay], env={**os.environ, "JOBRUNNER_LANE": lane + "7;"}, start_new_session=True
    )
    print(left.pid, flush=True)
guardian = subprocess.Popen(
    [sys.executable, "-c", code, str(os.getpid()), tag, spool], start_new_session=True
)
print(guardian.pid, flush=True)
signal.pause()
"""


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    made = tmp_path / "spool"
    made.mkdir()
    (made / "output").write_text("what a job printed")
    return made


@pytest.mark.parametrize("without", ["", _WITHOUT_PIDFDS], ids=["pidfd", "no pidfd"])
def test_the_guardian_ends_what_its_caller_leaves_behind(
    script: Callable[..., Script], spool: Path, without: str
) -> None:
    caller = script(_CALLER, f"{_GUARDIAN}{without}guardian.main()", "guarded.", spool)
    left, others, guardian = caller.pids(3)
    assert caller.line() == "on guard"
    os.kill(guardian, signal.SIGTERM)  # it is not talked out of it
    assert is_alive(left) and spool.exists()
    caller.signal(signal.SIGKILL)
    caller.process.wait()
    assert await_death(left)
    assert await_death(guardian)
    assert is_alive(others)
    assert not spool.exists()


def test_a_guardian_whose_caller_has_gone_before_does_not_wait_for_another_of_its_pid(spool: Path) -> None:
    # The process of that pid lives, and has not started it.
    code = "from jobrunner.executors.guardian import main; main()"
    starter = (
        "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', *sys.argv[1:]], timeout=60).returncode)"
    )
    ran = subprocess.run([sys.executable, "-c", starter, code, str(os.getpid()), "no such lane.", str(spool)])
    assert ran.returncode == 0
    assert not spool.exists()

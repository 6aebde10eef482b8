"""The guardian as a program of its own: it ends what its caller leaves behind, and removes its spool."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.core.process_table import await_death, is_alive, parent_of
from tests.core.scripts import Script

_GUARDIAN = """
import os
import jobrunner.executors.guardian as guardian
await_death = guardian._await_death

def told(*watched):
    print(os.getpid(), flush=True)
    await_death(*watched)

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
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGUSR1})
doorkeeper = subprocess.Popen(
    [sys.executable, "-c", code, str(os.getpid()), tag, spool], start_new_session=True, stdin=subprocess.PIPE, bufsize=0
)
print(doorkeeper.pid, flush=True)
"""
_STAY = "signal.pause()"
_SEND_AWAY = """
signal.sigwait({signal.SIGUSR1})
doorkeeper.stdin.write(b".")
print(doorkeeper.wait(), flush=True)
"""


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    made = tmp_path / "spool"
    made.mkdir()
    (made / "output").write_text("what a job printed")
    return made


class _Guarded:
    """A caller that has started a guardian, with what it may leave behind: of its own, and of another's."""

    def __init__(self, script: Callable[..., Script], spool: Path, then: str = _STAY, without: str = "") -> None:
        # Its own: the guardian of another test would end what carries the same.
        tag = f"guarded-{uuid.uuid4().hex}."
        self.caller = script(_CALLER + then, f"{_GUARDIAN}{without}guardian.main()", tag, spool)
        self.left, self.others, *two = self.caller.pids(4)
        # In the order in which they come to say so.
        self.guardian = max(two, key=lambda pid: parent_of(pid) in two)
        (self.doorkeeper,) = (pid for pid in two if pid != self.guardian)


@pytest.mark.parametrize("without", ["", _WITHOUT_PIDFDS], ids=["pidfd", "no pidfd"])
def test_the_guardian_ends_what_its_caller_leaves_behind(
    script: Callable[..., Script], spool: Path, without: str
) -> None:
    guarded = _Guarded(script, spool, without=without)
    for pid in (guarded.guardian, guarded.doorkeeper):
        os.kill(pid, signal.SIGTERM)  # it is not talked out of it
    assert is_alive(guarded.left) and spool.exists()
    guarded.caller.signal(signal.SIGKILL)
    guarded.caller.process.wait()
    assert await_death(guarded.left)
    assert await_death(guarded.guardian)
    assert await_death(guarded.doorkeeper)
    assert is_alive(guarded.others)
    assert not spool.exists()


def test_a_guardian_stays_when_the_children_of_its_caller_are_killed(
    script: Callable[..., Script], spool: Path
) -> None:
    guarded = _Guarded(script, spool)
    assert parent_of(guarded.doorkeeper) == guarded.caller.pid
    assert parent_of(guarded.guardian) != guarded.caller.pid
    os.kill(guarded.doorkeeper, signal.SIGKILL)
    assert await_death(guarded.doorkeeper)
    assert is_alive(guarded.guardian) and is_alive(guarded.left)
    guarded.caller.signal(signal.SIGKILL)
    guarded.caller.process.wait()
    assert await_death(guarded.left)
    assert await_death(guarded.guardian)


@pytest.mark.parametrize("without", ["", _WITHOUT_PIDFDS], ids=["pidfd", "no pidfd"])
def test_a_guardian_that_is_sent_away_leaves_everything_as_it_is(
    script: Callable[..., Script], spool: Path, without: str
) -> None:
    guarded = _Guarded(script, spool, _SEND_AWAY, without)
    guarded.caller.signal(signal.SIGUSR1)
    assert guarded.caller.line() == "0"
    # It is reaped, too.
    assert parent_of(guarded.guardian) == 0
    assert is_alive(guarded.left) and spool.exists()


def test_a_caller_sees_that_its_guardian_is_gone(script: Callable[..., Script], spool: Path) -> None:
    guarded = _Guarded(script, spool, "print(doorkeeper.wait(), flush=True)")
    os.kill(guarded.guardian, signal.SIGKILL)
    assert guarded.caller.line() == "0"
    assert parent_of(guarded.guardian) == 0


def test_a_guardian_whose_caller_has_gone_before_does_not_wait_for_another_of_its_pid(spool: Path) -> None:
    # The process of that pid lives, and has not started it.
    code = "from jobrunner.executors.guardian import main; main()"
    starter = (
        "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', *sys.argv[1:]], timeout=60).returncode)"
    )
    ran = subprocess.run([sys.executable, "-c", starter, code, str(os.getpid()), "no such lane.", str(spool)])
    assert ran.returncode == 0
    assert not spool.exists()

"""Which process holds the lease of a point, and whether it is still alive.

On one machine that is told by the process table: the process with that pid, if it started when the lease's owner did.
No clock is asked, so that a suspended laptop or a wrong date takes nobody's work away.  Only of a process that can't be
seen from here (another machine, another container) the time of its last sign of life decides.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
import threading
from pathlib import Path
from typing import Final

import psutil

__all__ = ["RUNS", "SILENT_S", "Owner", "Runs", "this_process"]

#: Seconds without a sign of life after which a process that can't be seen from here is taken for dead.
SILENT_S = 120.0


@dataclasses.dataclass(frozen=True)
class Owner:
    """A process that runs points of a store.

    Attributes:
        host: its machine's name, for people.
        machine: what tells whether its pid means anything here: the boot and the pid namespace.
        pid: its process id.
        started: when it started, as the system counts that; text that is only compared.
    """

    host: str
    machine: str
    pid: int
    started: str

    def visible(self) -> bool:
        """Whether this process could see that one."""
        return self.machine == _machine()

    def alive(self) -> bool:
        """Whether it runs; only for one that is visible."""
        return _started(self.pid) == self.started


class Runs:
    """The runs that are under way in this process, which a run that ended by an error has left behind in its store."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: set[tuple[str, int]] = set()

    def begin(self, path: Path, runner: int) -> None:
        """This process runs points of the store at `path` as its `runner`."""
        with self._lock:
            self._runs.add((str(path.resolve()), runner))

    def end(self, path: Path, runner: int) -> None:
        """It does no more."""
        with self._lock:
            self._runs.discard((str(path.resolve()), runner))

    def has(self, path: Path, runner: int) -> bool:
        """Whether it does."""
        with self._lock:
            return (str(path.resolve()), runner) in self._runs


RUNS: Final = Runs()


def this_process() -> Owner:
    """The calling process."""
    started = _started(os.getpid())
    assert started is not None
    return Owner(host=platform.node(), machine=_machine(), pid=os.getpid(), started=started)


def _machine() -> str:
    if sys.platform == "linux":
        try:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            return f"{boot} {os.readlink('/proc/self/ns/pid')}"
        except OSError:
            pass
    return f"{platform.node()} {psutil.boot_time():.0f}"


def _started(pid: int) -> str | None:
    """When a process started; None if there is none, or none that still runs (a zombie holds no lease)."""
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        except OSError:  # hidden from this user
            pass
        else:
            # Fields 3 and 22 of proc(5): the state, and the start in clock ticks since the boot.
            return None if fields[0] in (b"Z", b"X") else fields[19].decode("ascii")
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return None

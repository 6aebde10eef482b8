"""What processes do that have nothing to do, from /proc."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from pathlib import Path

import psutil

__all__ = ["Look", "look", "memory_of_children", "since"]


@dataclasses.dataclass(frozen=True)
class Look:
    """The counters of threads at a moment: by thread, CPU time in seconds, and context switches of the caller's.

    The thread that looks is left out: it only looks, and sleeps.
    """

    cpu_s: dict[int, float]
    switches: dict[int, int]


def look() -> Look:
    """The counters now, of this process and all that it has started."""
    mine = threading.get_native_id()
    me = psutil.Process()
    cpu_s: dict[int, float] = {}
    switches: dict[int, int] = {}
    for process in (me, *me.children(recursive=True)):
        for task in Path(f"/proc/{process.pid}/task").glob("*"):
            thread = int(task.name)
            if thread == mine:
                continue
            with contextlib.suppress(OSError, ValueError, IndexError):
                # Nanoseconds on a CPU; finer than the ticks of /proc/…/stat.
                cpu_s[thread] = int((task / "schedstat").read_text().split()[0]) / 1e9
                if process.pid == me.pid:
                    lines = (task / "status").read_text().splitlines()
                    switches[thread] = sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
    return Look(cpu_s, switches)


def since(before: Look) -> tuple[float, int]:
    """CPU seconds and the caller's context switches since then; those of threads that have ended are not known."""
    now = look()
    cpu_s = sum(value - before.cpu_s.get(thread, 0.0) for thread, value in now.cpu_s.items())
    return max(cpu_s, 0.0), sum(value - before.switches.get(thread, 0) for thread, value in now.switches.items())


def memory_of_children() -> int:
    """Bytes of memory of all that this process has started, a page that several share counted by parts (PSS)."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            full = process.memory_full_info()
            total += getattr(full, "pss", full.uss)
    return total

"""Places where jobs and tests meet: a test knows where a job is because the job has said so, never because time passed.

A gate is a directory with two FIFOs.  A job that comes writes its pid into `arrived`; one that waits reads a byte from
`release`.  The test holds both open for reading and writing, so that nobody's open ever blocks, and what is written
stays until it is read.  When the test ends, the gate is removed and whoever waits is let go.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, NoReturn


def arrive(gate: str) -> int:
    """Say that this process is here."""
    fd = os.open(f"{gate}/arrived", os.O_WRONLY)
    try:
        os.write(fd, b"%d\n" % os.getpid())
    finally:
        os.close(fd)
    return os.getpid()


def await_release(gate: str) -> None:
    """Wait until the test lets one through."""
    fd = os.open(f"{gate}/release", os.O_RDONLY)
    try:
        os.read(fd, 1)
    finally:
        os.close(fd)


def arrive_and_stay(gate: str) -> NoReturn:
    """Arrive, and stay for ever."""
    arrive(gate)
    while True:
        signal.pause()


def meet(gate: str, value: Any = None) -> Any:
    """Arrive, wait for the release, return `value`."""
    arrive(gate)
    await_release(gate)
    return value


def meet_and_raise(gate: str, error: BaseException) -> None:
    """Arrive, wait for the release, raise `error`."""
    meet(gate)
    raise error


class MeetsWhenLoaded:
    """An argument whose unpickling arrives and waits: a job that has it is VALIDATING."""

    def __init__(self, gate: str) -> None:
        self.gate = gate

    def __reduce__(self) -> Any:
        return meet, (self.gate, "loaded")


def append_line(path: str, text: object) -> None:
    """Append a line in one write, so that lines of many processes don't mix."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, f"{text}\n".encode())
    finally:
        os.close(fd)


def meet_and_count(gate: str, starts: str, name: str) -> str:
    """Note the start in a file, then `meet`: the file proves how often the job was started."""
    append_line(starts, name)
    meet(gate)
    return name


class Gate:
    """The test's side of a gate."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.path = str(directory)
        os.mkfifo(directory / "arrived")
        os.mkfifo(directory / "release")
        self._arrived = os.fdopen(os.open(directory / "arrived", os.O_RDWR), "rb", buffering=0)
        self._release = os.open(directory / "release", os.O_RDWR)

    def await_arrival(self, count: int = 1) -> list[int]:
        """Wait until `count` more processes have arrived; their pids."""
        return [self._read_pid() for _ in range(count)]

    def _read_pid(self) -> int:
        line = b""
        while not line.endswith(b"\n"):
            line += self._arrived.read(1) or b""
        return int(line)

    def release(self, count: int = 1) -> None:
        """Let `count` of those that wait, or will, go on."""
        os.write(self._release, b"." * count)

    def close(self) -> None:
        """Remove the gate; whoever waits at it sees its end, and whoever comes later fails."""
        for name in ("arrived", "release"):
            os.unlink(f"{self.path}/{name}")
        self._arrived.close()
        os.close(self._release)


def lines(path: Path) -> list[str]:
    """The lines of a file; none if it doesn't exist."""
    return path.read_text().split() if path.exists() else []


def use_cpu(seconds: float) -> float:
    """Keep a core busy for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return seconds

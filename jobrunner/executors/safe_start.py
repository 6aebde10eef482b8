"""Starting an interpreter whatever this process's working directory and standard streams are.

``python -m`` and ``python -c`` put the working directory first on the path, and a user's ``queue.py`` there would break
the start.  Python 3.11 and later are told not to by PYTHONSAFEPATH; 3.10 runs a ``sitecustomize`` of ours, which
imports what the start needs before the working directory is on the path.

loky flushes this process's standard streams before it starts another, and what it starts takes the lowest descriptors
for standard ones: where a stream is None, closed or without a descriptor, something stands in for it meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import jobrunner.worker

__all__ = [
    "during_start",
    "occupy_standard_descriptors",
    "restored_after_start",
    "start_variables",
    "working_streams",
]


def start_variables() -> dict[str, str]:
    """The variables to start an interpreter with."""
    if sys.version_info >= (3, 11):
        return {"PYTHONSAFEPATH": "1"}
    boot = str(Path(jobrunner.worker.__file__).with_name("boot"))
    paths = [boot, os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def restored_after_start() -> dict[str, str | None]:
    """What these variables are to be once the interpreter has started; None: not set."""
    return {name: os.environ.get(name) for name in start_variables()}


@contextlib.contextmanager
def during_start() -> Iterator[None]:
    """Have this process's environment hold these variables, for what takes no environment of its own."""
    before = restored_after_start()
    os.environ.update(start_variables())
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def working_streams() -> Iterator[None]:
    """Have `sys.stdout` and `sys.stderr` be such that they can be flushed; those that can be are left alone."""
    replaced: dict[str, tuple[Any, TextIO]] = {}
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except Exception:
            stand_in: TextIO = open(os.devnull, "w")  # noqa: SIM115 (closed below)
            replaced[name] = getattr(sys, name), stand_in
            setattr(sys, name, stand_in)
    try:
        yield
    finally:
        for name, (stream, stand_in) in replaced.items():
            if getattr(sys, name) is stand_in:
                setattr(sys, name, stream)
            stand_in.close()


def occupy_standard_descriptors() -> None:
    """Open the null device as standard input, output or error where that is closed.

    Else the next descriptor opened, perhaps a channel's, would be taken for it by every process started from here.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            fd = os.open(os.devnull, os.O_RDWR)
            if fd != number:
                os.dup2(fd, number)
                os.close(fd)

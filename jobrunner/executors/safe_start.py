"""Starting an interpreter so that the modules in its working directory don't stand before the standard library's.

``python -m`` and ``python -c`` put the working directory first on the path, and a user's ``queue.py`` there would break
the start.  Python 3.11 and later are told not to by PYTHONSAFEPATH; 3.10 runs a ``sitecustomize`` of ours, which
imports what the start needs before the working directory is on the path.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import jobrunner.worker

__all__ = ["during_start", "restored_after_start", "start_variables"]


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

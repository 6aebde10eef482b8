"""What a cell is doing, kept where it is found when the cell hangs, crashes or is killed.

Each stage begins by writing what it means not to come out of it, and by setting a clock that ends the interpreter; that
clock runs in C, so it does so also while other code holds the interpreter's lock.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys

__all__ = ["Stages"]


class Stages:
    """The stages of a cell.

    Args:
        path: the file that says what has gone wrong, or nothing, at any time.
        limit_s: how long a stage may take.
    """

    def __init__(self, path: str, limit_s: float) -> None:
        self.limit_s = limit_s
        # Held open: a cell may run out of descriptors.  A worker that is forked must not have it: a job that writes
        # into all of its descriptors is to harm its pool, not the report on it.
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.register_at_fork(after_in_child=self._let_go)

    def _let_go(self) -> None:
        os.close(self._fd)
        self._fd = -1

    def enter(self, verdict: str, wait_s: float = 0.0) -> None:
        """Begin a stage.

        Args:
            verdict: what it means if the cell doesn't come out of this stage.
            wait_s: how long the stage waits by itself.
        """
        self._write(verdict, "")
        faulthandler.dump_traceback_later(self.limit_s + wait_s, exit=True, file=sys.__stderr__ or 2)

    def settle(self, verdict: str, detail: str = "") -> None:
        """The cell is judged; what is left is the end of the interpreter, which may still hang."""
        self._write(verdict, detail)
        faulthandler.dump_traceback_later(self.limit_s, exit=True, file=sys.__stderr__ or 2)

    def _write(self, verdict: str, detail: str) -> None:
        data = json.dumps({"verdict": verdict, "detail": detail}).encode()
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, data, 0)

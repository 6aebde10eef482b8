"""Printing on stdout, for a terminal or a pipe."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from rich.console import Console

__all__ = ["may_be_closed", "plain_console", "stdout_reserved"]


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704 - called while a BrokenPipeError is handled; rich would exit with 1


def plain_console(file: TextIO | None = None) -> Console:
    """A console on `file`, default stdout, which to a pipe writes lines as long as they need be, without colours."""
    file = file or sys.stdout
    return _Console(file=file, width=None if file.isatty() else 100_000, highlight=False)


@contextlib.contextmanager
def may_be_closed() -> Iterator[None]:
    """What is printed in here may find its reader gone (``| head``): that is the reader's choice, and no error.

    Raises:
        OSError: it can't be written for another reason, such as a full disk.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
    except OSError:
        _forget_stdout()
        raise


def _forget_stdout() -> None:
    """Let what is still buffered not fail again when the interpreter flushes it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


@contextlib.contextmanager
def stdout_reserved() -> Iterator[None]:
    """Have what jobs print meanwhile go to stderr: stdout is for one document, which they must not mix with."""
    sys.stdout.flush()
    ours = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(ours, 1)
        os.close(ours)

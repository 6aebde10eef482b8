"""Printing on stdout, for a terminal or a pipe."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from rich.console import Console

__all__ = ["may_be_closed", "plain_console"]


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704 - called while a BrokenPipeError is handled; rich would exit with 1


def plain_console(file: TextIO | None = None) -> Console:
    """A console on `file`, default stdout, which to a pipe writes lines as long as they need be, without colours."""
    file = file or sys.stdout
    return _Console(file=file, width=None if file.isatty() else 100_000, highlight=False)


@contextlib.contextmanager
def may_be_closed() -> Iterator[None]:
    """What is printed in here may find its reader gone (``| head``): that is the reader's choice, and no error."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered must not fail again when the interpreter flushes it.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)

"""The exit codes of the command line, and the errors that carry them."""

from __future__ import annotations

from typing import IO, Any

import click

__all__ = [
    "ALL_DONE",
    "ENGINE_FAILED",
    "INTERRUPTED",
    "SOME_FAILED",
    "TERMINATED",
    "WRONG_USE",
    "EngineFailed",
    "WrongUse",
]

ALL_DONE = 0
SOME_FAILED = 1
WRONG_USE = 2
ENGINE_FAILED = 3  # or the store, or the output file
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
TERMINATED = 143  # 128 + SIGTERM


class _Failure(click.ClickException):
    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"jobrunner: {self.message}", file=file, err=True)


class WrongUse(_Failure):
    """Ends the command with a message on stderr and exit code 2, without a traceback: the user can put it right."""

    exit_code = WRONG_USE


class EngineFailed(_Failure):
    """Ends the command with a message on stderr and exit code 3, without a traceback."""

    exit_code = ENGINE_FAILED

"""Errors that a user cures with an option, named as who asks writes it: in Python, or on the command line."""

from __future__ import annotations

from typing import Any

from jobrunner.errors import SpecError

__all__ = ["AdviceError"]


class AdviceError(SpecError):
    """A `SpecError` that names options of Python's, and knows how to say the same on the command line.

    Args:
        message: what is wrong, and which arguments help.
        command_line: the same with options of the command line.
        file: the file concerned.
        facts: the fields of `JobRunnerError`.

    Attributes:
        command_line: the whole message for the command line.

    Example:
        >>> error = AdviceError("it is there: fresh=True", command_line="it is there: --fresh", file="jobrunner.db")
        >>> str(error), error.command_line
        ('jobrunner.db: it is there: fresh=True', 'jobrunner.db: it is there: --fresh')
    """

    def __init__(self, message: str = "", *, command_line: str = "", file: str | None = None, **facts: Any) -> None:
        super().__init__(message, file=file, **facts)
        self.command_line = str(SpecError(command_line, file=file))

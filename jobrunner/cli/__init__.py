"""The command line: parsing, rendering, exit codes.  `main` is the console script ``jobrunner``.

This module imports nothing but the standard library until `main` is called.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit the process.

    Args:
        arguments: what stands behind ``jobrunner``; default ``sys.argv[1:]``.

    Raises:
        SystemExit: always, with the exit code: 0 all done, 1 some jobs failed, 2 wrong use, 3 the engine or the output
            failed, 130 interrupted, 143 ended by SIGTERM.

    Example:
        >>> main(["run", "nothing"])
        Traceback (most recent call last):
        SystemExit: 2
    """
    # `python -m` puts the working directory first, where a user's queue.py would take the place of the library's.
    # Until everything of ours is imported it is left out.  The installed script lacks it altogether, and there it comes
    # last, so that a spec in another directory finds the same modules either way.
    here = os.getcwd()
    path = [*sys.path] if {"", here}.intersection(sys.path) else [*sys.path, here]
    sys.path[:] = [place for place in path if place not in ("", here)]
    try:
        from jobrunner.streams import occupy_standard_descriptors, restore_missing_streams

        # A stream that was closed (``>&-``) is as good as the null device.
        occupy_standard_descriptors()
        restore_missing_streams()
        from jobrunner.cli.app import app
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        sys.path[:] = path
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a result may have letters that the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    app(args=arguments, prog_name="jobrunner")
    raise AssertionError("click exits by itself")

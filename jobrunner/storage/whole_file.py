"""Writing a file that is either as it was before, or whole."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from jobrunner.errors import StoreError

__all__ = ["whole_file"]


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], what: str = "output file", *, private: bool = False) -> Iterator[TextIO]:
    """A text file to be written, which takes its name when all is written; after an error there is what was before.

    A new file is readable and writable by its owner alone; one that was there keeps its mode.  What is no regular file,
    such as a pipe, is written as it comes.

    Args:
        path: the file.
        what: what it is, for the error.
        private: whether a file that was there loses its mode, too, so that only its owner can read it.

    Raises:
        StoreError: it can't be written.
    """
    target = Path(os.path.realpath(path))  # a link stays one
    try:
        if target.exists() and not target.is_file() and not target.is_dir():
            with open(target, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
                yield file
            return
        if target.is_dir():
            raise IsADirectoryError(None, "it is a directory")
        beside = target.with_name(f".{secrets.token_hex(8)}")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            with open(descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if target.exists() and not private:
                os.chmod(beside, stat.S_IMODE(target.stat().st_mode))
            os.replace(beside, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise
    except OSError as error:
        raise StoreError(f"the {what} can't be written: {error.strerror or error}", path=str(path)) from error

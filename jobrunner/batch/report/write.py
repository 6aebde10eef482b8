"""Writes the page of a report: the whole, or nothing."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from jobrunner.batch.report.collect import collect
from jobrunner.batch.report.page import render
from jobrunner.batch.store import BatchRecord, Store
from jobrunner.errors import StoreError

__all__ = ["write_page", "write_report"]


def write_report(store: Store, batch: BatchRecord, path: str | os.PathLike[str]) -> None:
    """Write the report of a batch, one HTML page that needs nothing else.

    The batch may be running: the page shows it as it is at one moment.

    Args:
        store: the store, open.
        batch: one of its batches.
        path: the file, readable by its owner alone; one that is there is replaced.

    Raises:
        StoreError: the store can't be read, or the file can't be written.
    """
    write_page(render(collect(store, batch)), path)


def write_page(text: str, path: str | os.PathLike[str]) -> None:
    """Write a page to a file, readable by its owner alone.  Whoever reads meanwhile sees the old page or the new one.

    Args:
        text: the page.
        path: the file.

    Raises:
        StoreError: it can't be written; what was there stays.
    """
    target = Path(path)
    temporary = None
    try:
        if target.is_dir():
            raise IsADirectoryError(None, "it is a directory")
        target = target.resolve()  # a link stays one
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name[:100]}.", suffix=".part", dir=target.parent)
        with open(descriptor, "w", encoding="utf-8", newline="\n") as file:  # of mode 0600
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        raise StoreError(f"the report can't be written: {error.strerror or error}", path=str(path)) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)

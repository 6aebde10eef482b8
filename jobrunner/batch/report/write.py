"""Writes the page of a report: the whole, or nothing."""

from __future__ import annotations

import os

from jobrunner.batch.records import BatchRecord
from jobrunner.batch.report.collect import collect
from jobrunner.batch.report.page import render
from jobrunner.batch.store import Store
from jobrunner.storage.whole_file import whole_file

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
    with whole_file(path, "report", private=True) as file:
        file.write(text)

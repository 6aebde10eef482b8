"""What a store has of a batch, written to the file that ``--output`` names."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from jobrunner.batch.outcomes import Outcome, OutcomeStatus
from jobrunner.batch.output import check_output, open_output
from jobrunner.batch.records import BatchRecord, PointRecord
from jobrunner.batch.store import Store
from jobrunner.errors import SerializationError, StoreError
from jobrunner.report import JobReport
from jobrunner.status import JobStatus

__all__ = ["check_writable", "export", "stored_outcomes"]


def stored_outcomes(store: Store, batch: BatchRecord) -> Iterator[Outcome]:
    """The points that are done or have failed, in their order, each replicate by itself.

    A result that can't be loaded, or is withheld, stands there as what says so.
    """
    for point in store.points(batch, "done", "failed", results=True):
        yield stored_outcome(store, point)


def stored_outcome(store: Store, point: PointRecord) -> Outcome:
    """One point that is done or has failed, as a run told of it."""
    value = None
    if point.status == "done":
        try:
            value = store.value(point)
        except SerializationError as error:
            value = f"<{error}>"
    assert point.place is not None
    return Outcome(
        index=point.place,
        parameters=point.parameters,
        replicate=point.replicate,
        seed=point.seed,
        status=OutcomeStatus(point.status),
        value=value,
        cause=point.error,
        report=JobReport(job_id="", status=JobStatus.DONE, run_s=point.run_s),
    )


def check_writable(path: str | os.PathLike[str]) -> None:
    """Check that the output can be written, before hours are spent on it.  The file is left as it is.

    Raises:
        StoreError: it can't.
    """
    file = Path(path).resolve()
    try:
        if file.exists():
            os.close(os.open(file, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NONBLOCK", 0)))
        else:
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            file.unlink()
    except OSError as error:
        if error.errno == errno.ENXIO:
            return  # a pipe without a reader yet
        raise StoreError(f"the output file can't be written: {error.strerror}", path=str(path)) from error


def export(store: Store, batch: BatchRecord, path: str | os.PathLike[str]) -> None:
    """Write all that is done or has failed to a ``.csv`` or ``.jsonl`` file, whole or not at all.

    Args:
        store: the store.
        batch: the batch.
        path: the file; its ending says which.  A pipe or device is written as it is, and so is a file in a directory
            in which no other can be made.

    Raises:
        SpecError: another ending.
        StoreError: it can't be written.
    """
    check_output(path)
    path = Path(path)
    file = path.resolve()
    part = file.with_name(f".{secrets.token_hex(8)}{path.suffix}")  # a link's own name says which format
    try:
        if file.exists() and not (file.is_file() and os.access(file.parent, os.W_OK)):
            _write(store, batch, path)
            return
        try:
            _write(store, batch, part)
            with contextlib.suppress(FileNotFoundError):
                shutil.copymode(file, part)
            part.replace(file)
        finally:
            with contextlib.suppress(OSError):
                part.unlink()
    except OSError as error:
        raise StoreError(f"the output file can't be written: {error.strerror}", path=str(path)) from error
    except StoreError as error:
        if error.path != str(part):
            raise
        raise StoreError(str(error).removeprefix(f"{error.path}: "), path=str(path)) from error


def _write(store: Store, batch: BatchRecord, path: Path) -> None:
    query = "SELECT 1 FROM point WHERE batch = ? AND status IN ('done', 'failed') AND seed IS NOT NULL LIMIT 1"
    seeded = bool(store.rows(query, batch.id))
    with open_output(path, batch.parameters, replicated=batch.replicates > 1, seeded=seeded) as writer:
        for outcome in stored_outcomes(store, batch):
            writer.write(outcome)

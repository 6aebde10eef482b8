"""Opening a store, with all the checks that come first, and what SQLite says as an error of ours."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote
from urllib.request import pathname2url

from jobrunner.errors import StoreError
from jobrunner.storage.schema import APPLICATION_ID, VERSION, create_tables
from jobrunner.storage.trust import network_file_system, other_writers, strange_log

__all__ = ["be_patient", "connect", "store_errors"]

#: Seconds for which a store that another process keeps locked is waited for.
_LOCKED_S = 30.0

#: How many times as long a run waits that is under way.
_PATIENT = 20

#: Seconds between two tries where SQLite itself does not wait.
_LOCKED_PAUSE_S = 0.01

#: The least version of SQLite: partial upserts, and the write-ahead log read without write permission.
_LEAST_SQLITE = (3, 24, 0)


def connect(path: Path, *, write: bool, create: bool = False) -> sqlite3.Connection:
    """A connection to the store at `path`, which has been checked to be one.

    Args:
        path: the file.
        write: whether it is to be written.
        create: whether to make it where there is none, readable and writable by its owner alone.

    Raises:
        StoreError: see `Store`; and with `write`, somebody else could have written it, or it is read-only.
    """
    if sqlite3.sqlite_version_info < _LEAST_SQLITE:
        least = ".".join(map(str, _LEAST_SQLITE))
        raise StoreError(f"needs SQLite {least} or later, and this Python has {sqlite3.sqlite_version}", path=str(path))
    with store_errors(path):
        if write:
            _check_safe(path)
        if write and create:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600))
        if not path.exists():
            raise StoreError("there is no such store", path=str(path))
        if not path.is_file():
            raise StoreError("is no file", path=str(path))
        if not write:
            return _connect_reading(path)
        if not os.access(path, os.W_OK):
            raise StoreError("is read-only: no run can be recorded in it", path=str(path))
        connection = _open(path, "rw")
        try:
            version = _check(connection, path)  # first: how another program keeps its file is not for us to change
            _set_journal(connection, path)
            if version == 0:
                create_tables(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def _check_safe(path: Path) -> None:
    """Refuse what somebody else could write, before anything is made there."""
    if (danger := other_writers(path)) is not None:
        raise StoreError(
            f"is not safe to use: {danger}; a store holds programs (pickles), so that nobody else may write it: "
            "use one in a directory of your own (--store)",
            path=str(path),
        )


def _connect_reading(path: Path) -> sqlite3.Connection:
    for how in _ways_to_read(path):
        connection = _open(path, how)
        try:
            connection.execute("PRAGMA query_only = ON")
            if _check(connection, path) == 0:
                raise StoreError("is empty: nothing was run in it yet", path=str(path))
        except sqlite3.OperationalError as error:
            connection.close()
            # In a directory that this user may not write, SQLite can't make the log's index.  Without a log none is
            # needed: the file is all there is.  A journal means that a commit was cut short, and is to be undone.
            whole = how == "rw" or (how == "ro" and not any(map(_has_content, _logs(path))))
            if "locked" in str(error) or not whole:
                raise
            continue
        except BaseException:
            connection.close()
            raise
        return connection
    raise AssertionError("the last way returns or raises")


#: Without a look at logs and locks.
_FILE_ALONE = "ro&immutable=1"


def _ways_to_read(path: Path) -> Sequence[str]:
    """How to try to open a store for reading, the best first."""
    if strange_log(path):
        return [_FILE_ALONE]
    if os.access(path, os.W_OK) and other_writers(path) is None:
        # Who may write it clears up when it leaves last: what is in the log goes into the file, and the log goes.
        return ["rw", "ro", _FILE_ALONE]
    with open(path, "rb") as file:
        has_log_mode = file.read(20)[18:] == b"\2\2"
    if has_log_mode and not any(log.exists() for log in _logs(path)):
        # Nobody has it open.  Another way would leave files of ours beside it, for which its owner would refuse it.
        return [_FILE_ALONE]
    return ["ro", _FILE_ALONE]


def _logs(path: Path) -> list[Path]:
    """What may hold a part of the store that is not in its file."""
    file = path.resolve()
    return [file.with_name(f"{file.name}{ending}") for ending in ("-wal", "-journal")]


def _has_content(file: Path) -> bool:
    return file.exists() and file.stat().st_size > 0


def _open(path: Path, mode: str) -> sqlite3.Connection:
    # As bytes: a name need not be UTF-8.
    name = pathname2url(str(path.absolute())) if os.name == "nt" else quote(os.fsencode(path.absolute()))
    address = f"file:{name}?mode={mode}"
    connection = sqlite3.connect(address, uri=True, timeout=_LOCKED_S, isolation_level=None)
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> int:
    """The version of the store's tables; 0: it is empty."""
    # In one transaction: another process may be making the tables.
    connection.execute("BEGIN")
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    tables = int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    connection.execute("COMMIT")
    if application != APPLICATION_ID:
        if version or tables:
            raise StoreError("is another program's SQLite file, not a store of jobrunner's", path=str(path))
        return 0
    if version > VERSION:
        raise StoreError(
            f"was written by a later version of jobrunner (its tables are of version {version}, this one knows "
            f"{VERSION}): update jobrunner, or use another store (--store)",
            path=str(path),
        )
    return version


def be_patient(connection: sqlite3.Connection) -> None:
    """Wait longer for a store that is locked: for the points of another batch, millions of them, to be written."""
    connection.execute(f"PRAGMA busy_timeout = {int(_PATIENT * _LOCKED_S * 1000)}")


def _set_journal(connection: sqlite3.Connection, path: Path) -> None:
    """Choose how SQLite keeps a commit whole."""
    mode = "DELETE" if network_file_system(path) is not None else "WAL"
    give_up_at = time.monotonic() + _LOCKED_S
    while True:
        try:
            connection.execute(f"PRAGMA journal_mode = {mode}")
            break
        except sqlite3.OperationalError as error:
            # Of two that change it at the same time, SQLite refuses one at once: it waits for no lock here.
            if "locked" not in str(error) or time.monotonic() > give_up_at:
                raise
            time.sleep(_LOCKED_PAUSE_S)
    # With FULL a commit is on the disk when it returns: what was told to be done stays done after a power cut.
    connection.execute("PRAGMA synchronous = FULL")


_REASONS = {
    "file is not a database": "is no SQLite file, so no store of jobrunner's",
    "database is locked": "another process has kept it locked for too long: end that, and run this again",
    "readonly database": "is read-only: nothing can be recorded in it",
    "disk is full": "the disk is full: make room and run the same command again; what was recorded is kept",
    "malformed": "is damaged: SQLite finds it malformed; use another (--store), or a copy of it from before",
    "unable to open": "can't be opened: is its directory there, and may you write in it?",
    "disk I/O error": "the disk has failed to read or write it, or your quota on it is used up: when that is mended, "
    "run the same command again; what was recorded is kept",
}


@contextlib.contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system raise in here into `StoreError`."""
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        reason = next((reason for part, reason in _REASONS.items() if part in text), f"SQLite says: {text}")
        raise StoreError(reason, path=str(path)) from error
    except OSError as error:
        raise StoreError(f"can't be used: {error.strerror or error}", path=str(path)) from error
    except UnicodeEncodeError as error:
        raise StoreError(f"can't keep {error.object!r}: it is no UTF-8 text", path=str(path)) from error

"""The tables of a batch store, an SQLite file; docs/store.md explains each column.

Times are UTC epoch seconds, sizes bytes, durations seconds.  What is JSON is text in the form of `canonical_json`.
"""

from __future__ import annotations

import sqlite3

__all__ = ["APPLICATION_ID", "VERSION", "create_tables"]

#: "JOBR": marks the file as a store of jobrunner's (PRAGMA application_id).
APPLICATION_ID = 0x4A4F4252

#: The version of the tables below (PRAGMA user_version).  A store of a later one is refused.
VERSION = 1

_TABLES = """
CREATE TABLE batch (
    id            INTEGER PRIMARY KEY,
    name          TEXT NOT NULL UNIQUE,
    created_at    REAL NOT NULL,
    target        TEXT NOT NULL,
    directory     TEXT,
    parameters    TEXT NOT NULL,
    varying       TEXT NOT NULL,
    fixed         TEXT NOT NULL,
    options       TEXT NOT NULL,
    policy        TEXT NOT NULL,
    seed          TEXT,
    seed_drawn    INTEGER NOT NULL,
    replicates    INTEGER NOT NULL,
    points_digest TEXT NOT NULL,
    total         INTEGER NOT NULL,
    code          TEXT NOT NULL,
    machine       TEXT NOT NULL
);

CREATE TABLE note (
    id    INTEGER PRIMARY KEY,
    batch INTEGER NOT NULL REFERENCES batch (id),
    at    REAL NOT NULL,
    kind  TEXT NOT NULL,
    text  TEXT NOT NULL
);

CREATE TABLE runner (
    id             INTEGER PRIMARY KEY,
    batch          INTEGER NOT NULL REFERENCES batch (id),
    host           TEXT NOT NULL,
    machine        TEXT NOT NULL,
    pid            INTEGER NOT NULL,
    pid_started    TEXT NOT NULL,
    workers        INTEGER NOT NULL,
    started_at     REAL NOT NULL,
    seen_at        REAL NOT NULL,
    ended_at       REAL,
    stop_requested INTEGER NOT NULL DEFAULT 0,
    activity       TEXT
);

CREATE TABLE point (
    id         INTEGER PRIMARY KEY,
    batch      INTEGER NOT NULL REFERENCES batch (id),
    place      INTEGER,
    key        BLOB NOT NULL,
    parameters TEXT NOT NULL,
    replicate  INTEGER NOT NULL,
    seed       INTEGER,
    status     TEXT NOT NULL DEFAULT 'pending'
               CHECK (status IN ('pending', 'leased', 'done', 'failed', 'cancelled')),
    attempts   INTEGER NOT NULL DEFAULT 0,
    runner     INTEGER REFERENCES runner (id),
    outcome    INTEGER REFERENCES outcome (id)
);
CREATE UNIQUE INDEX point_by_key ON point (batch, key);
CREATE INDEX point_by_status ON point (batch, status, place);

CREATE TABLE outcome (
    id             INTEGER PRIMARY KEY,
    point          INTEGER NOT NULL REFERENCES point (id),
    runner         INTEGER NOT NULL REFERENCES runner (id),
    status         TEXT NOT NULL CHECK (status IN ('done', 'failed', 'retried')),
    recorded_at    REAL NOT NULL,
    started_at     REAL,
    finished_at    REAL,
    run_s          REAL,
    cpu_s          REAL,
    peak_rss_bytes INTEGER,
    host           TEXT,
    pid            INTEGER,
    error          TEXT,
    report         TEXT,
    format         TEXT CHECK (format IN ('json', 'pickle')),
    result         BLOB,
    stdout         TEXT,
    stderr         TEXT
);
CREATE INDEX outcome_by_point ON outcome (point);
"""


def create_tables(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty file, in one transaction: after a crash there are all of them, or none.

    Args:
        connection: in autocommit mode (``isolation_level=None``).
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:  # another process may have been first
            for statement in _TABLES.split(";\n"):
                if statement.strip():
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise

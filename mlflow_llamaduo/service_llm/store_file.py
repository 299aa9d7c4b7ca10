"""The reply store's file: its tables, and how it is opened and brought over from an earlier version."""

import sqlite3
import time
from pathlib import Path

from mlflow_llamaduo.errors import StageError

VERSION = 2
SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY,
    run TEXT NOT NULL,
    stage TEXT NOT NULL,
    model TEXT NOT NULL,
    text TEXT NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    usd REAL NOT NULL,
    cut INTEGER NOT NULL,
    created REAL NOT NULL,
    seconds REAL NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS replies_by_run ON replies (run);
CREATE INDEX IF NOT EXISTS replies_by_model ON replies (model, created);
CREATE TABLE IF NOT EXISTS losses (
    run TEXT NOT NULL,
    stage TEXT NOT NULL,
    model TEXT NOT NULL,
    reason TEXT NOT NULL,
    usd REAL NOT NULL,
    created REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS holds (
    id INTEGER PRIMARY KEY,
    owner TEXT NOT NULL,
    run TEXT NOT NULL,
    stage TEXT NOT NULL,
    model TEXT NOT NULL,
    most_usd REAL NOT NULL,
    likely_usd REAL NOT NULL,
    created REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS spent (
    run TEXT NOT NULL,
    stage TEXT NOT NULL,
    usd REAL NOT NULL,
    PRIMARY KEY (run, stage)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS work (
    run TEXT NOT NULL,
    stage TEXT NOT NULL,
    machine TEXT NOT NULL,
    seconds REAL NOT NULL,
    usd REAL NOT NULL,
    created REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS batches (
    id TEXT PRIMARY KEY,
    run TEXT NOT NULL,
    stage TEXT NOT NULL,
    model TEXT NOT NULL,
    keys TEXT NOT NULL,
    remote TEXT,
    most_usd REAL NOT NULL,
    created REAL NOT NULL
);
"""
FROM_VERSION_1 = """
ALTER TABLE replies ADD COLUMN seconds REAL NOT NULL DEFAULT 0;
INSERT INTO spent SELECT run, stage, SUM(usd) FROM
    (SELECT run, stage, usd FROM replies UNION ALL SELECT run, stage, usd FROM losses) GROUP BY run, stage;
"""
WAIT_S = 60.0
"""For another process that writes."""


def connect(path: Path | str) -> sqlite3.Connection:
    """A connection to the file, in WAL mode; each statement commits by itself unless a transaction is begun."""
    connection = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError:  # locked: SQLite lets nobody wait who changes the mode with another
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    connection.execute("PRAGMA synchronous = FULL")  # a paid reply outlives a power cut too
    connection.execute("PRAGMA mmap_size = 1073741824")
    return connection


def prepare(connection: sqlite3.Connection, path: Path | str) -> None:
    """Make the tables that are not there, and bring over those of an earlier version; within a transaction.

    Raises:
        StageError: a later version of this package made the file.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise StageError(f"{path} was made by a later version of mlflow-llamaduo: upgrade it")
    old = version == 0 and connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'replies'").fetchone()
    for statement in (SCHEMA + (FROM_VERSION_1 if old else "")).split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")

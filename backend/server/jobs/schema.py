# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of the job store, their version, and the way from earlier versions to it. There is no way back.

Whoever changes a table, or a field of a job's summary that a row holds, raises SCHEMA_VERSION and adds the step from
the version before to UPGRADES, "" if no table changes: an older server then refuses the store, and does not misread it.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path

from ...errors import CheckpointError

log = logging.getLogger(__name__)

DATABASE_FILE = "jobs.sqlite3"
SCHEMA_VERSION = 5
SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    job TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    ticket TEXT NOT NULL,
    state TEXT NOT NULL,
    arrival INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    turn INTEGER NOT NULL,
    ended_age REAL NOT NULL,
    summary TEXT NOT NULL,
    UNIQUE (owner, ticket)
);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value REAL NOT NULL);
CREATE TABLE IF NOT EXISTS turns (owner TEXT PRIMARY KEY, turn INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS durations (key TEXT, device TEXT, samples TEXT NOT NULL, PRIMARY KEY (key, device));
"""
# The step from each version to the next one, as SQL.
UPGRADES = {
    3: """
CREATE TABLE counters (name TEXT PRIMARY KEY, value REAL NOT NULL);
INSERT INTO counters SELECT name, value FROM facts;
DROP TABLE facts;
""",
    4: "",  # summaries got the fields of variations and of the newest preview
}


def prepare_database(database: sqlite3.Connection, folder: Path) -> None:
    """Set the journal mode, and create the tables or bring them to this version in one transaction.

    Before an upgrade the database is copied to `kept_copy`. Raises CheckpointError for a version that cannot be read,
    with nothing changed, sqlite3.Error and OSError.
    """
    version = database.execute("PRAGMA user_version").fetchone()[0]
    check_version(version, folder)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    steps = ""
    if version not in (0, SCHEMA_VERSION):
        copy_database(database, kept_copy(folder, version))
        steps = "".join(UPGRADES[earlier] for earlier in range(version, SCHEMA_VERSION))
        log.info("job store is upgraded", extra={"version": SCHEMA_VERSION, "copy": str(kept_copy(folder, version))})
    try:
        database.executescript(f"BEGIN IMMEDIATE;{steps}{SCHEMA}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")
    except sqlite3.Error:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def check_version(version: int, folder: Path) -> None:
    """Raises CheckpointError for a database of a version that this one can neither use nor upgrade."""
    if version in (0, SCHEMA_VERSION) or version in UPGRADES:
        return
    age = "a newer" if version > SCHEMA_VERSION else "an older"
    raise CheckpointError(
        f"{folder} was written by {age} Dreamwright (database version {version}, this one has {SCHEMA_VERSION}); use "
        "that version, restore a backup, or choose another folder with --state"
    )


def kept_copy(folder: Path, version: int) -> Path:
    """Where the database is kept as it was before an upgrade, for those who go back to the version that wrote it."""
    return folder / f"{DATABASE_FILE}.version-{version}"


def copy_database(source: sqlite3.Connection, target: Path) -> None:
    """A consistent copy of a database that may be in use, readable by its owner only, complete or not there at all.

    Raises sqlite3.Error, OSError.
    """
    temporary = target.with_name(f"{target.name}.part")
    temporary.unlink(missing_ok=True)
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        copy = sqlite3.connect(temporary)
        try:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, with nothing in a log beside it
        finally:
            copy.close()
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)

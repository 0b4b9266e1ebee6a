# SPDX-License-Identifier: GPL-3.0-or-later
"""The job store of an earlier version is upgraded in one transaction, with a copy kept; a newer one is refused."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from dreamwright.backend.errors import CheckpointError
from dreamwright.backend.server.jobs import schema
from dreamwright.backend.server.jobs.job_record import SAVED
from dreamwright.backend.server.jobs.job_store import JobStore
from dreamwright.shared.job_states import JobState
from tests.testing.scripted_worker_server import submit_message

# Every field that a row's summary holds. With a new one: raise SCHEMA_VERSION, add an upgrade of "", and add it here.
VERSION = 5
# fmt: off
FIELDS = [
    "job", "state", "prompt", "negative", "model", "preset", "seed", "settings", "step", "steps",
    "elapsed_s", "eta_s", "health", "message", "submitted_at", "mesh_bytes", "mesh_sha256",
    "changed",
    "owner", "priority", "attempt", "device", "pinned", "fetched", "cause", "resumable", "has_field", "parent_job",
    "mesh",
    "group", "group_index", "discarded", "preview_step",
]
# fmt: on
# As the server before version 4 wrote it.
VERSION_3 = """
CREATE TABLE jobs (job TEXT PRIMARY KEY, owner TEXT NOT NULL, ticket TEXT NOT NULL, state TEXT NOT NULL,
    arrival INTEGER NOT NULL, attempts INTEGER NOT NULL, summary TEXT NOT NULL, turn INTEGER NOT NULL DEFAULT 0,
    ended_age REAL NOT NULL DEFAULT 0, UNIQUE (owner, ticket));
CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE turns (owner TEXT PRIMARY KEY, turn INTEGER NOT NULL);
CREATE TABLE durations (key TEXT, device TEXT, samples TEXT NOT NULL, PRIMARY KEY (key, device));
PRAGMA user_version=3;
"""


def version_of(path: Path) -> int:
    database = sqlite3.connect(path)
    try:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(database.execute("PRAGMA user_version").fetchone()[0])
    finally:
        database.close()


def earlier_store(folder: Path, version: int) -> str:
    """A store of an earlier version with one paused job; the job's name."""
    store = JobStore(folder)
    job = store.add("ada", submit_message("t1"), 100).job
    store.transition(job, JobState.PAUSED)
    store.close()
    path = folder / schema.DATABASE_FILE
    database = sqlite3.connect(path)
    names = "job, owner, ticket, state, arrival, attempts, summary, turn, ended_age"
    row = list(database.execute(f"SELECT {names} FROM jobs").fetchone())
    database.close()
    newer = {"group", "group_index", "discarded", "preview_step"}
    row[6] = json.dumps({name: value for name, value in json.loads(row[6]).items() if name not in newer})
    if version == 3:
        path.unlink()
        database = sqlite3.connect(path)
        database.executescript(VERSION_3)
        database.execute("INSERT INTO facts VALUES ('changed', 7), ('turn', 3), ('age_s', 86400.5), ('saved_at', 1)")
    else:
        database = sqlite3.connect(path)
        database.execute("DELETE FROM jobs")
        database.execute(f"PRAGMA user_version={version}")
    database.execute(f"INSERT INTO jobs ({names}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    database.commit()
    database.close()
    return job


def test_a_row_has_the_fields_of_this_version() -> None:
    assert (schema.SCHEMA_VERSION, list(SAVED)) == (VERSION, FIELDS)


@pytest.mark.parametrize("version", schema.UPGRADES)
def test_an_earlier_store_is_upgraded_and_kept(tmp_path: Path, version: int) -> None:
    job = earlier_store(tmp_path, version)
    store = JobStore(tmp_path)
    try:
        assert store.records[job].state is JobState.PAUSED and store.find_ticket("ada", "t1") is store.records[job]
        assert store.turns.now == (3 if version == 3 else 1)
        assert (store.age.now_s() >= 86400) is (version == 3)
    finally:
        store.close()
    assert version_of(tmp_path / schema.DATABASE_FILE) == VERSION
    copy = schema.kept_copy(tmp_path, version)
    assert version_of(copy) == version and copy.stat().st_mode & 0o777 == 0o600
    JobStore(tmp_path).close()  # and it is upgraded once only
    assert version_of(tmp_path / schema.DATABASE_FILE) == VERSION


@pytest.mark.parametrize("fault", ["a wrong step", "no room for the copy"])
def test_an_upgrade_that_fails_changes_nothing(tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    job = earlier_store(tmp_path, 3)
    with monkeypatch.context() as broken:
        if fault == "a wrong step":
            broken.setitem(schema.UPGRADES, 4, "INSERT INTO jobs SELECT * FROM nowhere;")
        else:
            broken.setattr(schema, "copy_database", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(CheckpointError, match="cannot use the jobs"):
            JobStore(tmp_path)
    assert version_of(tmp_path / schema.DATABASE_FILE) == 3
    store = JobStore(tmp_path)
    assert store.records[job].owner == "ada"
    store.close()


@pytest.mark.parametrize(("version", "age"), [(min(schema.UPGRADES) - 1, "an older"), (VERSION + 1, "a newer")])
def test_a_store_of_another_time_is_refused_unchanged(tmp_path: Path, version: int, age: str) -> None:
    JobStore(tmp_path).close()
    path = tmp_path / schema.DATABASE_FILE
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version={version}")
    database.close()
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=f"{age} Dreamwright .database version {version}") as caught:
        JobStore(tmp_path)
    assert "\n" not in str(caught.value) and "restore a backup" in str(caught.value)
    assert path.read_bytes() == before

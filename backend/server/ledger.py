# SPDX-License-Identifier: GPL-3.0-or-later
"""All jobs, on disk before anybody hears of them: SQLite in WAL mode, one row a job, states moved by one table."""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable

from dreamwright.backend.errors import CheckpointError
from dreamwright.shared.messages import JobSummary, Submit
from dreamwright.shared.states import ENDED, JobState, check_transition

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    job TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    ticket TEXT NOT NULL,
    state TEXT NOT NULL,
    arrival INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    summary TEXT NOT NULL,
    UNIQUE (owner, ticket)
);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""


@dataclass(frozen=True)
class Entry:
    """A job with what only the server knows of it."""

    summary: JobSummary
    owner: str
    ticket: str
    arrival: int  # its place in line; smaller comes first
    attempts: int  # runs that ended in a dead worker

    @property
    def state(self) -> JobState:
        return JobState(self.summary.state)


class Ledger:
    """The jobs of one state folder. Entries are read from memory; changes of state are committed before they return."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._clock = folder, clock
        try:
            self._db = sqlite3.connect(folder / "jobs.sqlite3", isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, SCHEMA_VERSION):
                raise CheckpointError(
                    f"{folder} was written by a newer Dreamwright (ledger version {version}); update this one, "
                    "or choose another folder with --state"
                )
            self._db.executescript(SCHEMA)
            self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            rows = self._db.execute("SELECT owner, ticket, arrival, attempts, summary FROM jobs").fetchall()
            fact = self._db.execute("SELECT value FROM facts WHERE name='changed'").fetchone()
        except sqlite3.Error as error:
            raise CheckpointError(f"cannot use the ledger in {folder}: {error}; choose another folder with --state") from error
        self.entries: dict[str, Entry] = {}
        for owner, ticket, arrival, attempts, text in rows:
            summary = JobSummary(**json.loads(text))
            self.entries[summary.job] = Entry(summary, owner, ticket, arrival, attempts)
        highest = max((entry.summary.changed for entry in self.entries.values()), default=0)
        # Progress is counted in memory only, so leave room for what was told before a crash.
        self._changed = max(highest, fact[0] if fact else 0) + 1_000_000
        self._arrival = max((entry.arrival for entry in self.entries.values()), default=0)

    def close(self) -> None:
        """Write the counters and let go of the file."""
        self._db.execute("INSERT OR REPLACE INTO facts VALUES ('changed', ?)", (self._changed,))
        self._db.close()

    @property
    def changed(self) -> int:
        """The number of the newest change."""
        return self._changed

    def job_folder(self, job: str) -> Path:
        """Where a job's checkpoints and results lie."""
        return self.folder / "jobs" / job

    def find_ticket(self, owner: str, ticket: str) -> Entry | None:
        """The job that this owner already submitted under this ticket."""
        return next((e for e in self.entries.values() if (e.owner, e.ticket) == (owner, ticket)), None)

    def add(self, owner: str, request: Submit, steps: int) -> Entry:
        """A new queued job, committed."""
        self._arrival += 1
        summary = JobSummary(
            job=secrets.token_hex(8),
            state=JobState.QUEUED.value,
            prompt=request.prompt,
            negative=request.negative,
            model=request.model,
            preset=request.preset,
            seed=request.seed,
            settings=dict(request.settings),
            step=0,
            steps=steps,
            elapsed_s=0.0,
            eta_s=-1.0,
            queue_place=0,
            health="",
            message="",
            submitted_at=self._clock(),
            mesh_bytes=0,
            mesh_sha256="",
            changed=self._tick(),
        )
        entry = Entry(summary, owner, request.ticket, self._arrival, 0)
        self.entries[summary.job] = entry
        self._write(entry)
        self._renumber()
        return self.entries[summary.job]

    def move(self, job: str, state: JobState, attempts: int | None = None, **fields: Any) -> Entry:
        """Change a job's state and fields, committed. Raises ValueError for an illegal move."""
        entry = self.entries[job]
        check_transition(entry.state, state)
        summary = replace(entry.summary, state=state.value, changed=self._tick(), **fields)
        entry = replace(entry, summary=summary, attempts=entry.attempts if attempts is None else attempts)
        self.entries[job] = entry
        self._write(entry)
        self._renumber()
        return self.entries[job]

    def note(self, job: str, **fields: Any) -> Entry:
        """Change fields of a job, in memory: progress is not worth a write to disk."""
        entry = self.entries[job]
        entry = replace(entry, summary=replace(entry.summary, changed=self._tick(), **fields))
        self.entries[job] = entry
        return entry

    def forget(self, job: str) -> Entry:
        """Remove a job that has ended. Raises ValueError for one that has not."""
        entry = self.entries[job]
        if entry.state not in ENDED:
            raise ValueError(f"the job is {entry.state.value}; cancel it first")
        self._db.execute("DELETE FROM jobs WHERE job=?", (job,))
        return self.entries.pop(job)

    def waiting(self) -> list[Entry]:
        """Queued jobs, first in line first."""
        queued = [entry for entry in self.entries.values() if entry.state is JobState.QUEUED]
        return sorted(queued, key=lambda entry: entry.arrival)

    def newest(self, owner: str, before: int, count: int) -> list[Entry]:
        """An owner's jobs, newest change first, of those changed before `before` (0: all)."""
        seen = [e for e in self.entries.values() if e.owner == owner and (not before or e.summary.changed < before)]
        return sorted(seen, key=lambda entry: -entry.summary.changed)[:count]

    def _renumber(self) -> None:
        """Keep everybody's place in line true; places are derived, so they live in memory only."""
        places = {entry.summary.job: place for place, entry in enumerate(self.waiting(), start=1)}
        for job, entry in self.entries.items():
            place = places.get(job, 0)
            if entry.summary.queue_place != place:
                self.note(job, queue_place=place)

    def _tick(self) -> int:
        self._changed += 1
        return self._changed

    def _write(self, entry: Entry) -> None:
        text = json.dumps({name: getattr(entry.summary, name) for name in JobSummary.__dataclass_fields__})
        self._db.execute(
            "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?)",
            (entry.summary.job, entry.owner, entry.ticket, entry.summary.state, entry.arrival, entry.attempts, text),
        )

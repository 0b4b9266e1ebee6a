# SPDX-License-Identifier: GPL-3.0-or-later
"""All jobs, on disk before anybody hears of them: SQLite in WAL mode, one row a job, states moved by one table."""

from __future__ import annotations

import json
import logging
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dreamwright.shared.job_states import ENDED, JobState, check_transition
from dreamwright.shared.messages import JobSummary, SubmitJob

from ...errors import CheckpointError
from .durations import DurationSample, DurationStats
from .retention import MonotonicAge
from .scheduling import RoundRobin, QueuedJob, sort_queue, started

log = logging.getLogger(__name__)

SCHEMA_VERSION = 3  # 3: summaries with fields of refining, which older servers do not know
SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    job TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    ticket TEXT NOT NULL,
    state TEXT NOT NULL,
    arrival INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    summary TEXT NOT NULL,
    turn INTEGER NOT NULL DEFAULT 0,
    ended_age REAL NOT NULL DEFAULT 0,
    UNIQUE (owner, ticket)
);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS turns (owner TEXT PRIMARY KEY, turn INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS durations (key TEXT, device TEXT, samples TEXT NOT NULL, PRIMARY KEY (key, device));
"""
FROM_VERSION_1 = """
ALTER TABLE jobs ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN ended_age REAL NOT NULL DEFAULT 0;
"""


class StorageError(Exception):
    """The ledger could not be written, most likely for want of space; nothing has changed, on disk or in memory."""


def new_name() -> str:
    """A name for a job that no other has."""
    return secrets.token_hex(8)


@dataclass(frozen=True)
class JobRecord:
    """A job with what only the server knows of it."""

    summary: JobSummary
    owner: str
    ticket: str
    arrival: int  # smaller came first
    attempts: int  # runs that ended in a dead worker
    turn: int = 0  # the turn it took when it was started; 0: none, or given up by pausing
    ended_age: float = 0.0  # the server's age when it ended, seconds

    @property
    def state(self) -> JobState:
        return JobState(self.summary.state)


class JobStore:
    """The jobs of one state folder. Entries are read from memory; changes of state are committed before they return.

    Every change is written first and then believed: a write that fails raises StorageError and leaves all as it was.
    """

    def __init__(
        self, folder: Path, wall: Callable[[], float] = time.time, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder, self._wall = folder, wall
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(folder / "jobs.sqlite3", isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise CheckpointError(
                    f"{folder} was written by a newer Dreamwright (ledger version {version}); update this one, "
                    "or choose another folder with --state"
                )
            upgrade = FROM_VERSION_1 if version == 1 else ""
            self._db.executescript(f"BEGIN;{upgrade}{SCHEMA}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")
            rows = self._db.execute(
                "SELECT owner, ticket, arrival, attempts, turn, ended_age, summary FROM jobs"
            ).fetchall()
            facts = dict(self._db.execute("SELECT name, value FROM facts").fetchall())
            following = dict(self._db.execute("SELECT owner, turn FROM turns").fetchall())
            durations = self._db.execute("SELECT key, device, samples FROM durations").fetchall()
        except (sqlite3.Error, OSError) as error:
            raise CheckpointError(
                f"cannot use the ledger in {folder}: {error}; choose another folder with --state"
            ) from error
        self.entries: dict[str, JobRecord] = {}
        self._tickets: dict[tuple[str, str], str] = {}
        for owner, ticket, arrival, attempts, turn, ended_age, text in rows:
            # Version 1 kept the owner in its column only.
            summary = JobSummary(**(json.loads(text) | {"owner": owner}))
            self._believe(JobRecord(summary, owner, ticket, arrival, attempts, turn, ended_age))
        highest = max((entry.summary.changed for entry in self.entries.values()), default=0)
        # Progress is counted in memory only, so leave room for what was told before a crash.
        self._changed = max(highest, int(facts.get("changed", 0))) + 1_000_000
        self._arrival = max((entry.arrival for entry in self.entries.values()), default=0)
        self.turns = RoundRobin(int(facts.get("turn", 1)), following)
        self.durations = DurationStats(
            {(key, device): [DurationSample(*pair) for pair in json.loads(text)] for key, device, text in durations}
        )
        self.age = MonotonicAge(float(facts.get("age_s", 0.0)), float(facts.get("saved_at", 0.0)), wall, clock)
        self._renumber()

    def close(self) -> None:
        """Write the counters and let go of the file."""
        try:
            self.save_facts()
        except StorageError as fault:
            log.warning(
                "counters not written", extra={"why": str(fault)}
            )  # they are allowed to be a little behind, as after a crash
        finally:
            self._db.close()

    @property
    def changed(self) -> int:
        """The number of the newest change."""
        return self._changed

    def job_folder(self, job: str) -> Path:
        """Where a job's checkpoints and results lie."""
        return self.folder / "jobs" / job

    def find_ticket(self, owner: str, ticket: str) -> JobRecord | None:
        """The job that this owner already submitted under this ticket."""
        return self.entries.get(self._tickets.get((owner, ticket), ""))

    def add(self, owner: str, request: SubmitJob, steps: int, job: str = "", step: int = 0) -> JobRecord:
        """A new queued job, committed; `job` is its name where it has a folder already (see `new_name`), `step` where it begins."""
        summary = JobSummary(
            job=job or new_name(),
            state=JobState.QUEUED.value,
            prompt=request.prompt,
            negative=request.negative,
            model=request.model,
            preset=request.preset,
            seed=request.seed,
            settings=dict(request.settings),
            step=step,
            steps=steps,
            elapsed_s=0.0,
            eta_s=-1.0,
            queue_position=0,
            health="",
            message="",
            submitted_at=self._wall(),
            mesh_bytes=0,
            mesh_sha256="",
            changed=self._tick(),
            owner=owner,
            priority=request.priority,
            parent_job=request.parent_job,
            mesh=request.mesh,
        )
        entry = JobRecord(summary, owner, request.ticket, self._arrival + 1, 0)
        with self._commit():
            self._write(entry)
        self._arrival += 1
        self._believe(entry)
        self._renumber()
        return self.entries[summary.job]

    def move(self, job: str, state: JobState, attempts: int | None = None, **fields: Any) -> JobRecord:
        """Change a job's state and fields, committed. Raises ValueError for an illegal move, StorageError for the disk."""
        entry = self.entries[job]
        check_transition(entry.state, state)
        turn, turns = entry.turn, self.turns
        if state is JobState.RUNNING:
            again = bool(turn)
            turn = next(place for place, waiting in self._order() if waiting.job == job)
            turns = started(turns, turn, entry.owner, again)
            fields["attempt"] = entry.summary.attempt + 1
        elif state in (JobState.PAUSED, JobState.FAILED):
            turn = 0  # should it be resumed, it takes a new one
        summary = replace(entry.summary, state=state.value, changed=self._tick(), **fields)
        ended_age = self.age.now_s() if state in ENDED else 0.0
        attempts = entry.attempts if attempts is None else attempts
        entry = replace(entry, summary=summary, attempts=attempts, turn=turn, ended_age=ended_age)
        with self._commit():
            self._write(entry)
            if turns is not self.turns:
                self._write_turns(turns)
        self.turns = turns
        self._believe(entry)
        self._renumber()
        return self.entries[job]

    def amend(self, job: str, **fields: Any) -> JobRecord:
        """Change fields of a job but not its state, committed."""
        entry = self.entries[job]
        entry = replace(entry, summary=replace(entry.summary, changed=self._tick(), **fields))
        with self._commit():
            self._write(entry)
        self._believe(entry)
        self._renumber()
        return self.entries[job]

    def note(self, job: str, **fields: Any) -> JobRecord:
        """Change fields of a job, in memory: progress is not worth a write to disk."""
        entry = self.entries[job]
        entry = replace(entry, summary=replace(entry.summary, changed=self._tick(), **fields))
        self.entries[job] = entry
        return entry

    def record_duration(self, key: str, device: str, steps: int, stepping_s: float, rest_s: float) -> None:
        """Keep how long a run took."""
        samples = self.durations.add(key, device, steps, stepping_s, rest_s)
        text = json.dumps([[sample.step_s, sample.rest_s] for sample in samples])
        with self._commit():
            self._db.execute("INSERT OR REPLACE INTO durations VALUES (?, ?, ?)", (key, device, text))

    def save_facts(self) -> None:
        """Write what is counted in memory: changes and the server's age."""
        age_s, wall = self.age.to_save()
        with self._commit():
            for name, value in (("changed", self._changed), ("age_s", age_s), ("saved_at", wall)):
                self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def forget(self, job: str) -> JobRecord:
        """Remove a job that has ended. Raises ValueError for one that has not, StorageError for the disk."""
        entry = self.entries[job]
        if entry.state not in ENDED:
            raise ValueError(f"the job is {entry.state.value}; cancel it first")
        with self._commit():
            self._db.execute("DELETE FROM jobs WHERE job=?", (job,))
        self._tickets.pop((entry.owner, entry.ticket), None)
        return self.entries.pop(job)

    def waiting(self) -> list[JobRecord]:
        """Queued jobs, first in line first."""
        return [self.entries[waiting.job] for _, waiting in self._order()]

    def waited_s(self, entry: JobRecord) -> float:
        """Seconds since a job was submitted, by the clock that wrote it down."""
        return max(0.0, self._wall() - entry.summary.submitted_at)

    def open_jobs(self, owner: str | None = None) -> int:
        """Jobs that have not ended, of one owner or of all."""
        return sum(1 for e in self.entries.values() if e.state not in ENDED and owner in (None, e.owner))

    def newest(self, owner: str | None, before: int, count: int) -> list[JobRecord]:
        """An owner's jobs (None: everybody's), newest change first, of those changed before `before` (0: all)."""
        seen = [
            e for e in self.entries.values() if owner in (None, e.owner) and (not before or e.summary.changed < before)
        ]
        return sorted(seen, key=lambda entry: -entry.summary.changed)[:count]

    def _order(self) -> list[tuple[int, QueuedJob]]:
        return sort_queue(
            (
                QueuedJob(e.summary.job, e.owner, e.summary.priority, e.arrival, e.turn)
                for e in self.entries.values()
                if e.state is JobState.QUEUED
            ),
            self.turns,
        )

    def _renumber(self) -> None:
        """Keep everybody's place in line true; places are derived, so they live in memory only."""
        places = {waiting.job: place for place, (_, waiting) in enumerate(self._order(), start=1)}
        for job, entry in self.entries.items():
            place = places.get(job, 0)
            if entry.summary.queue_position != place:
                self.note(job, queue_position=place)

    def _tick(self) -> int:
        self._changed += 1
        return self._changed

    def _believe(self, entry: JobRecord) -> None:
        self.entries[entry.summary.job] = entry
        self._tickets[(entry.owner, entry.ticket)] = entry.summary.job

    @contextmanager
    def _commit(self) -> Iterator[None]:
        """One transaction. Raises StorageError when the disk refuses; then nothing of it was done."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except sqlite3.Error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise StorageError(f"the server cannot write to {self.folder} ({error}); make room on its disk") from error

    def _write(self, entry: JobRecord) -> None:
        text = json.dumps({name: getattr(entry.summary, name) for name in JobSummary.__dataclass_fields__})
        self._db.execute(
            "INSERT OR REPLACE INTO jobs (job, owner, ticket, state, arrival, attempts, turn, ended_age, summary) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                entry.summary.job,
                entry.owner,
                entry.ticket,
                entry.summary.state,
                entry.arrival,
                entry.attempts,
                entry.turn,
                entry.ended_age,
                text,
            ),
        )

    def _write_turns(self, turns: RoundRobin) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES ('turn', ?)", (turns.now,))
        self._db.execute("DELETE FROM turns")
        self._db.executemany("INSERT INTO turns VALUES (?, ?)", list(turns.following.items()))

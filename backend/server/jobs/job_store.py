# SPDX-License-Identifier: GPL-3.0-or-later
"""All jobs of a state folder in SQLite (WAL mode), one row each. Changes are committed before they are published."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from dreamwright.shared.job_states import ENDED, JobState, check_transition
from dreamwright.shared.messages import SubmitJob

from ...errors import CheckpointError
from .durations import DurationSample, DurationStats
from .job_record import COLUMNS, JobListener, JobRecord, NoListener, from_row, new_job_name, new_summary, to_row
from .queue_lines import QueueLines
from .retention import MonotonicAge
from .scheduling import QueuedJob, RoundRobin, before_all, sort_queue, started
from .schema import DATABASE_FILE as DATABASE_FILE
from .schema import prepare_database

log = logging.getLogger(__name__)

WRITE_JOB = f"INSERT OR REPLACE INTO jobs ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
SHORT_QUEUE = 500  # jobs whose positions are computed with every change: about a millisecond
POSITION_SHARE = 0.05  # of a position in a longer queue: smaller changes are not published
RENUMBER_SHARE = 0.05  # of the server's time that positions of a longer queue may take
CHANGES_AHEAD = 1_000_000  # progress is numbered in memory only; a restart skips numbers that a crash may have lost


class StorageError(Exception):
    """The job store could not be written, most likely for lack of space; nothing has changed, on disk or in memory."""


class JobStore:
    """The jobs of one state folder, read from memory. Methods that commit do so before they return.

    A change is written to SQLite before the in-memory cache is updated: a failed write raises StorageError and leaves
    both unchanged. `listener` is called after each change. Raises CheckpointError for a folder or database that cannot
    be used.
    """

    def __init__(
        self,
        folder: Path,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        listener: JobListener | None = None,
    ) -> None:
        self.folder, self._wall, self._listener = folder, wall, NoListener() if listener is None else listener
        self.records: dict[str, JobRecord] = {}
        self._tickets: dict[tuple[str, str], str] = {}
        self._queue = QueueLines()
        self._open: Counter[str] = Counter()  # jobs that have not ended, by owner
        self._ended: Counter[str] = Counter()  # ended jobs, by owner
        self._numbered: set[str] = set()  # jobs with a queue position
        self._must_renumber, self._renumber_at = False, 0.0
        self._clock = clock
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(folder / DATABASE_FILE, isolation_level=None)
            prepare_database(self._db, folder)
            rows = self._db.execute(f"SELECT {', '.join(COLUMNS)} FROM jobs").fetchall()
            counters = dict(self._db.execute("SELECT name, value FROM counters").fetchall())
            next_turns = dict(self._db.execute("SELECT owner, turn FROM turns").fetchall())
            durations = self._db.execute("SELECT key, device, samples FROM durations").fetchall()
            for row in rows:
                self._cache(from_row(row))
            samples = {(key, device): [DurationSample(*s) for s in json.loads(text)] for key, device, text in durations}
        except (sqlite3.Error, OSError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"cannot use the jobs in {folder}: {error}; choose another folder with --state"
            ) from error
        highest = max((record.summary.changed for record in self.records.values()), default=0)
        self._changed = max(highest, int(counters.get("changed", 0))) + CHANGES_AHEAD
        self._arrival = max((record.arrival for record in self.records.values()), default=0)
        self.turns = RoundRobin(int(counters.get("turn", 1)), next_turns)
        self.durations = DurationStats(samples)
        age_s, saved_at = float(counters.get("age_s", 0.0)), float(counters.get("saved_at", 0.0))
        self.age = MonotonicAge(age_s, saved_at, wall, clock)
        self._renumber()

    def close(self) -> None:
        """Write the counters and close the database."""
        try:
            self.save_counters()
        except StorageError as error:  # they may be a little behind, as after a crash
            log.warning("counters not written", extra={"why": str(error)})
        finally:
            self._db.close()

    @property
    def changed(self) -> int:
        """The number of the newest change."""
        return self._changed

    def job_folder(self, job: str) -> Path:
        """The folder of a job's checkpoints and results."""
        return self.folder / "jobs" / job

    def find_ticket(self, owner: str, ticket: str) -> JobRecord | None:
        """The job that this owner submitted under this ticket."""
        return self.records.get(self._tickets.get((owner, ticket), ""))

    def add(self, owner: str, request: SubmitJob, steps: int, job: str = "", step: int = 0) -> JobRecord:
        """Commit a new queued job that starts at `step` of `steps`. Raises StorageError.

        `job` is its name when it has a folder already (see `new_job_name`); "" makes one.
        """
        summary = new_summary(request, job or new_job_name(), owner, step, steps, self._wall(), self._next_change())
        record = JobRecord(summary, owner, request.ticket, self._arrival + 1, 0)
        with self._transaction():
            self._write(record)
        self._arrival += 1
        return self._committed(record)

    def transition(self, job: str, state: JobState, attempts: int | None = None, **fields: Any) -> JobRecord:
        """Commit a change of state, and of fields of the summary. Raises ValueError for an illegal one, StorageError.

        RUNNING gives the job its turn and counts a new attempt.
        """
        record = self.records[job]
        check_transition(record.state, state)
        turn, turns = record.turn, self.turns
        if state is JobState.RUNNING:
            resumed = bool(turn)
            turn = self._queue.turn_of(job, self.turns)
            turns = started(turns, turn, record.owner, resumed)
            fields["attempt"] = record.summary.attempt + 1
        elif state in (JobState.PAUSED, JobState.FAILED):
            turn = 0  # when it is resumed it takes a new one
        record = replace(
            record,
            summary=replace(record.summary, state=state.value, changed=self._next_change(), **fields),
            attempts=record.attempts if attempts is None else attempts,
            turn=turn,
            ended_age=self.age.now_s() if state in ENDED else 0.0,
        )
        with self._transaction():
            self._write(record)
            if turns is not self.turns:
                self._write_turns(turns)
        self.turns = turns
        return self._committed(record)

    def update(self, job: str, **fields: Any) -> JobRecord:
        """Commit fields of a job's summary, its state excepted. Raises StorageError."""
        record = self._with_fields(job, fields)
        with self._transaction():
            self._write(record)
        return self._committed(record)

    def move_first(self, job: str) -> JobRecord:
        """Commit that a queued job starts before all others. Raises ValueError for another state, StorageError."""
        record = self.records[job]
        if record.state is not JobState.QUEUED:
            raise ValueError(f"the job is {record.state.value}; only queued ones can be moved")
        turn = before_all(self._queued())
        record = replace(record, turn=turn, summary=replace(record.summary, changed=self._next_change()))
        with self._transaction():
            self._write(record)
        return self._committed(record)

    def update_in_memory(self, job: str, **fields: Any) -> JobRecord:
        """Change fields of a job's summary without a commit: progress is not worth a write to disk."""
        record = self.records[job] = self._with_fields(job, fields)
        self._listener.publish_progress(record)
        return record

    def delete(self, job: str) -> JobRecord:
        """Commit the deletion of an ended job. Raises ValueError for one that has not ended, StorageError."""
        record = self.records[job]
        if record.state not in ENDED:
            raise ValueError(f"the job is {record.state.value}; cancel it first")
        with self._transaction():
            self._db.execute("DELETE FROM jobs WHERE job=?", (job,))
        self._tickets.pop((record.owner, record.ticket), None)
        self._count(record, -1)
        del self.records[job]
        self._listener.publish_deletion(record)
        return record

    def record_duration(self, key: str, device: str, steps: int, stepping_s: float, rest_s: float) -> None:
        """Commit how long a run took. Raises StorageError."""
        samples = self.durations.add(key, device, steps, stepping_s, rest_s)
        text = json.dumps([[sample.step_s, sample.rest_s] for sample in samples])
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO durations VALUES (?, ?, ?)", (key, device, text))

    def save_counters(self) -> None:
        """Commit what is counted in memory: changes and the folder's age. Raises StorageError."""
        age_s, saved_at = self.age.to_save()
        with self._transaction():
            for name, value in (("changed", self._changed), ("age_s", age_s), ("saved_at", saved_at)):
                self._db.execute("INSERT OR REPLACE INTO counters VALUES (?, ?)", (name, value))

    def waiting(self) -> list[JobRecord]:
        """Queued jobs in the order in which they will be started."""
        return [self.records[queued.job] for _, queued in self._order()]

    @property
    def queued(self) -> int:
        """The number of queued jobs."""
        return len(self._queue)

    def next_waiting(self) -> JobRecord | None:
        """The queued job that is started next; None when there is none."""
        job = self._queue.first(self.turns)
        return self.records[job] if job else None

    def waited_s(self, record: JobRecord) -> float:
        """Seconds since a job was submitted, by the clock that stamped it."""
        return max(0.0, self._wall() - record.summary.submitted_at)

    def open_jobs(self, owner: str | None = None) -> int:
        """The number of jobs that have not ended, of one owner or of all."""
        return self._open.total() if owner is None else self._open[owner]

    def ended_jobs(self, owner: str) -> int:
        """The number of ended jobs of one owner."""
        return self._ended[owner]

    def newest(self, owner: str | None, before: int, count: int) -> list[JobRecord]:
        """An owner's jobs (None: everybody's), newest change first, of those changed before `before` (0: all)."""
        matching = [
            record
            for record in self.records.values()
            if owner in (None, record.owner) and (not before or record.summary.changed < before)
        ]
        return sorted(matching, key=lambda record: -record.summary.changed)[:count]

    def _queued(self) -> Iterator[QueuedJob]:
        return iter(self._queue)

    def _order(self) -> list[tuple[int, QueuedJob]]:
        return sort_queue(self._queue, self.turns)

    def renumber_when_due(self) -> None:
        """Publish the positions in a long queue that changed much. It takes at most RENUMBER_SHARE of the time."""
        if not self._must_renumber or self._clock() < self._renumber_at:
            return
        started = time.perf_counter()
        for job in self._renumber():
            self._listener.publish_progress(self.records[job])
        self._must_renumber = False
        self._renumber_at = self._clock() + (time.perf_counter() - started) / RENUMBER_SHARE

    def _renumber(self) -> list[str]:
        """Recompute every queue position; the jobs whose position changed. Positions live in memory only.

        In a long queue those that changed by less than a twentieth stay as they are.
        """
        positions = {queued.job: position for position, (_, queued) in enumerate(self._order(), start=1)}
        share = 0.0 if len(positions) <= SHORT_QUEUE else POSITION_SHARE
        moved = []
        for job in (*positions, *(self._numbered - positions.keys())):
            record, position = self.records.get(job), positions.get(job, 0)
            if record is None or abs(record.summary.queue_position - position) <= share * position:
                continue
            self.records[job] = self._with_fields(job, {"queue_position": position})
            moved.append(job)
        self._numbered = set(positions)
        return moved

    def _with_fields(self, job: str, fields: dict[str, Any]) -> JobRecord:
        record = self.records[job]
        return replace(record, summary=replace(record.summary, changed=self._next_change(), **fields))

    def _next_change(self) -> int:
        self._changed += 1
        return self._changed

    def _cache(self, record: JobRecord) -> None:
        self._count(self.records.get(record.job), -1)
        self._count(record, 1)
        self.records[record.job] = record
        self._tickets[record.owner, record.ticket] = record.job
        if record.state is JobState.QUEUED:
            priority = record.summary.priority
            self._queue.put(QueuedJob(record.job, record.owner, priority, record.arrival, record.turn))
        else:
            self._queue.remove(record.job)

    def _count(self, record: JobRecord | None, change: int) -> None:
        if record is not None:
            counter = self._ended if record.state in ENDED else self._open
            counter[record.owner] += change

    def _committed(self, record: JobRecord) -> JobRecord:
        """Cache a committed record and publish it, then the jobs whose queue position it changed."""
        self._cache(record)
        moved = self._renumber() if len(self._queue) <= SHORT_QUEUE else self._place_last(record)
        self._listener.publish_job(self.records[record.job])
        for job in moved:
            if job != record.job:
                self._listener.publish_job(self.records[job])
        return self.records[record.job]

    def _place_last(self, record: JobRecord) -> list[str]:
        """Give a job of a long queue the last position until all are computed anew, and one that left it none."""
        self._must_renumber = True
        position = (record.summary.queue_position or len(self._queue)) if record.state is JobState.QUEUED else 0
        if position:
            self._numbered.add(record.job)
        if position != record.summary.queue_position:
            self.records[record.job] = self._with_fields(record.job, {"queue_position": position})
        return []

    @contextmanager
    def _transaction(self) -> Iterator[None]:
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

    def _write(self, record: JobRecord) -> None:
        self._db.execute(WRITE_JOB, to_row(record))

    def _write_turns(self, turns: RoundRobin) -> None:
        self._db.execute("INSERT OR REPLACE INTO counters VALUES ('turn', ?)", (turns.now,))
        self._db.execute("DELETE FROM turns")
        self._db.executemany("INSERT INTO turns VALUES (?, ?)", list(turns.next_turns.items()))

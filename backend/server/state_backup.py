# SPDX-License-Identifier: GPL-3.0-or-later
"""Backup of a state folder while its server runs, and restore into a new folder.

The files are first linked into a hidden folder of the state folder, where the server does not change them: it replaces
files and does not rewrite them. A job whose row changed meanwhile is linked again, until no row has changed. So each
job of the copied job store has the files of its state; one that was running is queued again when a server starts.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dreamwright.shared import __version__
from dreamwright.shared.job_states import JobState

from ..errors import CheckpointError, ConfigError, RunError
from .jobs.durable_files import sync_folder
from .jobs.job_record import COLUMNS, JobRecord, from_row
from .jobs.schema import DATABASE_FILE, check_version, copy_database
from .state_archive import is_plain_name, read_archive, write_archive
from .state_folder import LOCK_FILE
from .workers.job_executor import MESH_FILE

JOBS, FOLDERS = "jobs", ("jobs", "keys", "uploads")  # and the files beside them
LEFT_OUT = (LOCK_FILE,)  # names of files, in any folder
BACKUP_LOCK, STAGING = ".backup.lock", ".backup-"
ROUNDS = 20  # of linking the jobs that changed meanwhile
SQL = f"SELECT {', '.join(COLUMNS)} FROM jobs"


@dataclass(frozen=True)
class BackupReport:
    """What a backup holds. damaged: jobs with a mesh in the job store whose file is missing in the state folder."""

    files: int
    jobs: int
    size: int  # bytes of the archive
    damaged: tuple[str, ...]


def back_up(state: Path, target: Path) -> BackupReport:
    """Write a backup of a state folder, whose server may run, to a new file of mode 0600.

    Raises ConfigError for a folder without jobs, a file that exists and a disk that is full, CheckpointError for a job
    store that cannot be read, RunError when jobs change all the time; nothing of the file is left then.
    """
    if not (state / DATABASE_FILE).is_file():
        raise ConfigError(f"{state} holds no jobs; give the folder of dreamwright serve with --state")
    if target.exists():
        raise ConfigError(f"{target} exists; a backup replaces nothing: give another name, or remove it first")
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with _staging(state) as staging:
            records = _stage(state, staging)
            damaged = tuple(
                record.job
                for record in records.values()
                if record.summary.mesh_bytes
                and record.state is JobState.SUCCEEDED
                and not (staging / JOBS / record.job / MESH_FILE).is_file()
            )
            names = sorted(path.relative_to(staging).as_posix() for path in staging.rglob("*") if path.is_file())
            about = {"software": __version__, "created": datetime.now(UTC).isoformat(timespec="seconds")}
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                count = write_archive(stream, staging, names, about)
                stream.flush()
                os.fsync(stream.fileno())
            os.link(part, target)  # unlike a rename, it replaces nothing
            sync_folder(target.absolute().parent)
            return BackupReport(count, len(records), target.stat().st_size, damaged)
    except sqlite3.Error as error:
        raise CheckpointError(f"the jobs in {state} cannot be read: {error}; nothing was written") from error
    except OSError as error:
        raise ConfigError(
            f"the backup {target} cannot be written: {error.strerror or error}"
            f"{f' ({error.filename})' if error.filename else ''}; make room, or give another place"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def restore(archive: Path, state: Path) -> dict[str, Any]:
    """Write a backup into a new or empty state folder, all of it or nothing; what the backup says of itself.

    Raises ConfigError for a folder that is not empty and for a file that is no backup, CheckpointError for a job store
    of a newer version.
    """
    if state.is_file() or (state.is_dir() and any(state.iterdir())):
        raise ConfigError(f"{state} is not empty; a backup is restored into a new folder: give another with --state")
    try:
        state.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{state.name}.restoring-", dir=state.parent))  # mode 0700
        try:
            about = read_archive(archive, fresh)
            _check_database(fresh, archive)
            if state.is_dir():
                state.rmdir()
            fresh.rename(state)
            sync_folder(state.parent)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise ConfigError(
            f"{archive} cannot be restored to {state}: {error.strerror or error}"
            f"{f' ({error.filename})' if error.filename else ''}; nothing was written"
        ) from error
    return about


@contextlib.contextmanager
def _staging(state: Path) -> Iterator[Path]:
    """A hidden folder of the state folder, removed at the end; those that a killed backup left are removed first."""
    lock = FileLock(state / BACKUP_LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(f"another backup of {state} is being written; wait until it ends") from error
    try:
        for left in state.glob(f"{STAGING}*"):
            shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=STAGING, dir=state))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        lock.release()


def _stage(state: Path, staging: Path) -> dict[str, JobRecord]:
    """Link all files and copy the job store, so that both are of one moment; the jobs."""
    for name in FOLDERS:
        if name != JOBS:
            _link_tree(state / name, staging / name)
    for path in sorted(state.iterdir()):
        if path.is_file() and not path.is_symlink() and DATABASE_FILE not in path.name:
            _link(path, staging / path.name)
    before: dict[str, JobRecord] = {}
    for _ in range(ROUNDS):
        records = _copy_jobs(state, staging / DATABASE_FILE)
        for job in before.keys() | records.keys():
            if before.get(job) != records.get(job):
                shutil.rmtree(staging / JOBS / job, ignore_errors=True)
                if job in records:
                    _link_tree(state / JOBS / job, staging / JOBS / job, without=".part")  # rewritten in place
        if before == records:
            return records
        before = records
    raise RunError(f"the jobs in {state} changed {ROUNDS} times while they were copied; try again")


def _copy_jobs(state: Path, target: Path) -> dict[str, JobRecord]:
    """Copy the job store of a server that may run; its jobs. Raises sqlite3.Error, CheckpointError."""
    source = sqlite3.connect(f"{(state / DATABASE_FILE).absolute().as_uri()}?mode=rw", uri=True, timeout=30)
    try:
        copy_database(source, target)
    finally:
        source.close()
    copy = sqlite3.connect(target)
    try:
        check_version(copy.execute("PRAGMA user_version").fetchone()[0], state)
        records = [from_row(row) for row in copy.execute(SQL)]
    except ValueError as error:
        raise CheckpointError(f"the jobs in {state} cannot be read: {error}; nothing was written") from error
    finally:
        copy.close()
    return {record.job: record for record in records}


def _link_tree(source: Path, target: Path, without: str = "") -> None:
    """Link the plain files of a folder that a server may be changing; what is gone meanwhile is left out.

    `without`: how the names end that are left out too; "": none.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                _link_tree(source / entry.name, target / entry.name, without)
            elif entry.is_file(follow_symlinks=False) and not (without and entry.name.endswith(without)):
                _link(source / entry.name, target / entry.name)


def _link(source: Path, target: Path) -> None:
    """Link one file, or copy it where the file system has no links."""
    if source.name in LEFT_OUT or not is_plain_name(source.name):  # a name with a leading dot is a temporary file
        return
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        try:
            os.link(source, target)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copy2(source, target)


def _check_database(folder: Path, archive: Path) -> None:
    """Raises ConfigError for a job store that is damaged, CheckpointError for one of another version."""
    try:
        database = sqlite3.connect(f"{(folder / DATABASE_FILE).absolute().as_uri()}?mode=rw", uri=True)
        try:
            check_version(database.execute("PRAGMA user_version").fetchone()[0], archive)
            state = database.execute("PRAGMA integrity_check(1)").fetchone()[0]
        finally:
            database.close()
    except sqlite3.Error as error:
        state = str(error)
    if state != "ok":
        raise ConfigError(f"{archive} cannot be restored: its job store is damaged ({state}); give another backup")

# SPDX-License-Identifier: GPL-3.0-or-later
"""Status of a server for `dreamwright top`: devices, jobs and users, never prompts."""

from __future__ import annotations

from dataclasses import dataclass

from . import limits
from .job_states import JobState
from .limits import LARGEST
from .schema import boolean, enum, integer, list_of, number, text

MAX_DEVICES, MAX_JOBS, MAX_USERS = 64, 500, 500  # at most, in one `ServerStatus`, which also has the totals


@dataclass(frozen=True)
class DeviceStatus:
    """A device and its current job."""

    name: str = text(limits.NAME_CHARACTERS)
    state: str = enum("idle", "busy")
    job: str = text(limits.JOB_CHARACTERS)  # "": none, or of another user
    user: str = text(limits.OWNER_CHARACTERS)
    steps_per_s: float = number(0, 1e12)  # 0: unknown
    silent_s: float = number(-1, 1e12)  # since the worker's last progress report; -1: none for this job yet
    draining: bool = boolean(False)  # no other job starts there


@dataclass(frozen=True)
class JobStatus:
    """A job that has not ended."""

    job: str = text(limits.JOB_CHARACTERS)
    user: str = text(limits.OWNER_CHARACTERS)
    state: str = enum(*(state.value for state in JobState))
    place: int = integer(0, LARGEST)  # 1: next; 0: not in the queue
    step: int = integer(0, LARGEST)
    steps: int = integer(0, LARGEST)
    eta_s: float = number(-1, 1e12)  # running: until its end; queued: latest expected end; -1: unknown
    device: str = text(limits.NAME_CHARACTERS)
    priority: int = integer(limits.PRIORITY_LOWEST, limits.PRIORITY_HIGHEST)
    attempt: int = integer(0, LARGEST)


@dataclass(frozen=True)
class UserStatus:
    """A user with jobs that have not ended, or who connected since the server's start."""

    name: str = text(limits.OWNER_CHARACTERS)
    running: int = integer(0, LARGEST)
    queued: int = integer(0, LARGEST)
    paused: int = integer(0, LARGEST)
    connections: int = integer(0, LARGEST)
    seen_s: float = number(-1, 1e12)  # since the last message; -1: none since the server's start


@dataclass(frozen=True)
class ServerStatus:
    """Admins see everything; other users see their own jobs, themselves, and which devices are busy."""

    software: str = text(limits.NAME_CHARACTERS)
    sees_all: bool = boolean()
    is_closing: bool = boolean()
    uptime_s: float = number(0, 1e12)
    connections: int = integer(0, LARGEST)
    disk_used_bytes: int = integer(0, LARGEST)  # by meshes and checkpoints; 0 unless sees_all
    disk_free_bytes: int = integer(0, LARGEST)
    devices: tuple[DeviceStatus, ...] = list_of(DeviceStatus, MAX_DEVICES)
    jobs: tuple[JobStatus, ...] = list_of(JobStatus, MAX_JOBS)  # running, then queued in order, then paused
    users: tuple[UserStatus, ...] = list_of(UserStatus, MAX_USERS)
    jobs_open: int = integer(0, LARGEST)  # visible jobs that have not ended, also those beyond the list
    users_known: int = integer(0, LARGEST)

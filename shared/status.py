# SPDX-License-Identifier: GPL-3.0-or-later
"""How a server is doing, as `dreamwright top` draws it: devices, jobs and users, without any prompt."""

from __future__ import annotations

from dataclasses import dataclass

from . import limits
from .job_states import JobState
from .limits import LARGEST
from .schema import boolean, enum, number, list_of, text, integer

DEVICES_TOLD, JOBS_TOLD, USERS_TOLD = 64, 500, 500  # in one status; `ServerStatus` says how many there are


@dataclass(frozen=True)
class DeviceStatus:
    """A device and what it works on."""

    name: str = text(limits.NAME_CHARACTERS)
    state: str = enum("idle", "busy")
    job: str = text(limits.JOB_CHARACTERS)  # "": none, or somebody else's
    user: str = text(limits.OWNER_CHARACTERS)
    steps_per_s: float = number(0, 1e12)  # 0: not known yet
    silent_s: float = number(-1, 1e12)  # since its worker last told of a step; -1: it has not, of this job


@dataclass(frozen=True)
class JobStatus:
    """A job that has not ended."""

    job: str = text(limits.JOB_CHARACTERS)
    user: str = text(limits.OWNER_CHARACTERS)
    state: str = enum(*(state.value for state in JobState))
    place: int = integer(0, LARGEST)  # 1: next; 0: not in the queue
    step: int = integer(0, LARGEST)
    steps: int = integer(0, LARGEST)
    eta_s: float = number(-1, 1e12)  # running: to its end; queued: at the latest; -1: unknown
    device: str = text(limits.NAME_CHARACTERS)
    priority: int = integer(limits.PRIORITY_LOWEST, limits.PRIORITY_HIGHEST)
    attempt: int = integer(0, LARGEST)


@dataclass(frozen=True)
class UserStatus:
    """A user who has jobs that have not ended, or was here since the server's start."""

    name: str = text(limits.OWNER_CHARACTERS)
    running: int = integer(0, LARGEST)
    queued: int = integer(0, LARGEST)
    paused: int = integer(0, LARGEST)
    connections: int = integer(0, LARGEST)
    seen_s: float = number(-1, 1e12)  # seconds ago; -1: not since the server's start


@dataclass(frozen=True)
class ServerStatus:
    """The whole server to an admin; to others their own jobs and themselves, and of devices only whether they are busy."""

    software: str = text(limits.NAME_CHARACTERS)
    sees_all: bool = boolean()
    is_closing: bool = boolean()
    uptime_s: float = number(0, 1e12)
    connections: int = integer(0, LARGEST)
    disk_used_bytes: int = integer(0, LARGEST)  # of meshes and checkpoints; 0 to who does not see all
    disk_free_bytes: int = integer(0, LARGEST)
    devices: tuple[DeviceStatus, ...] = list_of(DeviceStatus, DEVICES_TOLD)
    jobs: tuple[JobStatus, ...] = list_of(JobStatus, JOBS_TOLD)  # running first, then the queue in its order, then paused
    users: tuple[UserStatus, ...] = list_of(UserStatus, USERS_TOLD)
    jobs_open: int = integer(0, LARGEST)  # all that have not ended and may be seen, also those beyond the list
    users_known: int = integer(0, LARGEST)

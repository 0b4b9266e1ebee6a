# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages of those who run a server: its admins, and the user of a server without keys. `messages` registers them."""

from __future__ import annotations

from dataclasses import dataclass

from . import limits
from .limits import LARGEST
from .schema import boolean, integer, text


@dataclass(frozen=True)
class MoveJob:
    """Start a queued job before all others. Answered by a `JobReply`."""

    job: str = text(limits.JOB_CHARACTERS)


@dataclass(frozen=True)
class DrainDevice:
    """Start no more jobs on a device, or start them again; the job that runs there goes on. Answered by `Done`."""

    device: str = text(limits.NAME_CHARACTERS)
    draining: bool = boolean()


@dataclass(frozen=True)
class FreeDisk:
    """Delete the ended jobs that are not pinned and whose mesh was downloaded, or that have none, the oldest first.

    Answered by `DiskFreed`. One request deletes a bounded number of jobs.
    """


@dataclass(frozen=True)
class DiskFreed:
    """What was deleted, and the number of jobs that another request would delete."""

    jobs: int = integer(0, LARGEST)
    size: int = integer(0, LARGEST)  # bytes
    left: int = integer(0, LARGEST)

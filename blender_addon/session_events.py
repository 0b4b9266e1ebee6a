# SPDX-License-Identifier: GPL-3.0-or-later
"""What a session tells: notices for the person, and events for who acts on them. Knows nothing of bpy."""

from __future__ import annotations

from dataclasses import dataclass

from .shared.mesh_file import MeshFile
from .shared.messages import JobSummary


@dataclass(frozen=True)
class Notice:
    """Something that a person should read; `fix` names the operator that helps."""

    text: str
    is_error: bool = True
    fix: str = ""


@dataclass(frozen=True)
class NewFrame:
    """A picture arrived and is in `Session.frames`."""

    job: str


@dataclass(frozen=True)
class JobStarted:
    """A job that was asked for here is in the server's queue."""

    job: JobSummary


@dataclass(frozen=True)
class JobEnded:
    """A job that was seen alive in this session has ended."""

    job: JobSummary


@dataclass(frozen=True)
class MeshArrived:
    """A mesh was fetched and checked; `by_itself` when nobody pressed a button for it."""

    job: JobSummary
    mesh: MeshFile
    by_itself: bool

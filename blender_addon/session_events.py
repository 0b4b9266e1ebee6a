# SPDX-License-Identifier: GPL-3.0-or-later
"""What a session reports: notices for the user, and events for the add-on's timer. Does not import bpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .shared.mesh_file import MeshFile
from .shared.messages import JobSummary


@dataclass(frozen=True)
class Notice:
    """A message for the panel; `fix` is the operator whose button appears below it."""

    text: str
    is_error: bool = True
    fix: str = ""


@dataclass(frozen=True)
class PreviewReceived:
    """A preview of this job was added to `Session.previews`."""

    job: str


@dataclass(frozen=True)
class ThumbnailReady:
    """The tile of this job in `Session.newest_previews` is new."""

    job: str


@dataclass(frozen=True)
class JobStarted:
    """The server accepted a job that was submitted from this session.

    `place`: where it was submitted, as `Session.here` names it; None when another session of this computer did that.
    """

    job: JobSummary
    place: Any = None


@dataclass(frozen=True)
class JobEnded:
    """A job ended during this session."""

    job: JobSummary


@dataclass(frozen=True)
class MeshDownloaded:
    """A mesh was downloaded and validated; `is_automatic` when the user did not press Import for it.

    `place`: where it was asked for, as `Session.here` names it.
    """

    job: JobSummary
    mesh: MeshFile
    is_automatic: bool
    place: Any = None


SessionEvent = PreviewReceived | ThumbnailReady | JobStarted | JobEnded | MeshDownloaded

# SPDX-License-Identifier: GPL-3.0-or-later
"""Every message of the protocol: requests, their replies, and events. `codec` turns them into bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import limits
from .capabilities import Capabilities
from .errors import CODES
from .failure_causes import FailureCause
from .job_states import JobState
from .limits import LARGEST
from .live_mesh_messages import LiveMeshAck, LiveMeshFrame
from .model_messages import (
    CapabilitiesChanged,
    DownloadModel,
    ModelDownload,
    ModelDownloadChanged,
    ModelDownloadReply,
    StopDownload,
)
from .operator_messages import DiskFreed, DrainDevice, FreeDisk, MoveJob
from .schema import binary, boolean, enum, integer, list_of, number, record, scalar_map, text
from .status import ServerStatus

STATES = tuple(state.value for state in JobState)
CAUSES = tuple(cause.value for cause in FailureCause)
ITEM_KINDS = ("mesh",)  # files of a job that can be fetched


@dataclass(frozen=True)
class JobSummary:
    """A job as its owner and admins see it."""

    job: str = text(limits.JOB_CHARACTERS)
    state: str = enum(*STATES)
    prompt: str = text(limits.PROMPT_CHARACTERS)
    negative: str = text(limits.PROMPT_CHARACTERS)
    model: str = text(limits.NAME_CHARACTERS)
    preset: str = text(limits.NAME_CHARACTERS)
    seed: int = integer(0, limits.SEED_LARGEST)
    settings: dict[str, Any] = scalar_map(limits.SETTINGS)
    step: int = integer(0, LARGEST)
    steps: int = integer(0, LARGEST)
    elapsed_s: float = number(0, 1e12)
    eta_s: float = number(-1, 1e12)  # -1: unknown
    queue_position: int = integer(0, LARGEST)  # 1: next; 0: not in the queue
    health: str = text(limits.NAME_CHARACTERS)  # verdict of the run's monitors; "" until the first check
    message: str = text(limits.MESSAGE_CHARACTERS)  # why it failed or was restarted, or a warning
    submitted_at: float = number(0, 1e12)  # Unix time of the server's clock
    mesh_bytes: int = integer(0, limits.FILE_BYTES)  # 0: no mesh yet
    mesh_sha256: str = text(64)
    changed: int = integer(0, LARGEST)  # revision; grows with every change of any job
    owner: str = text(limits.OWNER_CHARACTERS, "")  # admins see the jobs of all owners
    priority: int = integer(limits.PRIORITY_LOWEST, limits.PRIORITY_HIGHEST, 0)
    attempt: int = integer(0, LARGEST, 0)  # times it was assigned to a worker; only the latest may report
    device: str = text(limits.NAME_CHARACTERS, "")  # where it runs, or ran last
    ready_low_s: float = number(-1, 1e12, -1.0)  # queued: earliest expected end, in seconds from now; -1: unknown
    ready_high_s: float = number(-1, 1e12, -1.0)  # latest expected end
    pinned: bool = boolean(False)  # kept until its owner unpins it
    fetched: bool = boolean(False)  # its whole mesh was downloaded once; until then it is kept longer
    cause: str = enum(*CAUSES, default="")  # why its last attempt failed; "" when none did, or a later one succeeded
    resumable: bool = boolean(False)  # failed, with a checkpoint to resume from
    has_field: bool = boolean(False)  # its field is kept: a job with another prompt can start from it
    parent_job: str = text(limits.JOB_CHARACTERS, "")  # the job from whose field it starts
    mesh: str = text(64, "")  # SHA-256 of the uploaded mesh that it refines; "": it generates from scratch
    group: str = text(limits.GROUP_CHARACTERS, "")  # of variations of one prompt that were submitted together; "": none
    group_index: int = integer(0, limits.VARIATIONS_LARGEST - 1, 0)  # its place among them
    discarded: bool = boolean(False)  # it is being stopped, and is deleted as soon as it has ended
    preview_step: int = integer(0, LARGEST, 0)  # of its newest preview, which `GetPreview` returns; 0: none


@dataclass(frozen=True)
class PreviewFrame:
    """A preview image after `step` steps: 8-bit sRGB, rows from the top, zlib-compressed."""

    job: str = text(limits.JOB_CHARACTERS)
    step: int = integer(0, LARGEST)
    width: int = integer(1, 4096)
    height: int = integer(1, 4096)
    data: bytes = binary(limits.REPLY_BYTES)


# --- requests


@dataclass(frozen=True)
class Hello:
    """Greeting, and later heartbeat, of a client: its answer shows whether the server was restarted."""

    client: str = text(limits.TICKET_CHARACTERS)  # id of the installation; with the ticket it identifies a submission
    software: str = text(limits.NAME_CHARACTERS)


@dataclass(frozen=True)
class GetCapabilities:
    """Ask for models, presets, settings and limits. Answered by `Capabilities`."""


@dataclass(frozen=True)
class GetStatus:
    """Ask for devices, jobs and users. Answered by `ServerStatus`."""


@dataclass(frozen=True)
class SubmitJob:
    """Create a job. A repeated ticket of the same client names the same job, so a retry creates no second one."""

    ticket: str = text(limits.TICKET_CHARACTERS)
    prompt: str = text(limits.PROMPT_CHARACTERS)
    negative: str = text(limits.PROMPT_CHARACTERS)
    model: str = text(limits.NAME_CHARACTERS)
    preset: str = text(limits.NAME_CHARACTERS)
    seed: int = integer(0, limits.SEED_LARGEST)
    settings: dict[str, Any] = scalar_map(limits.SETTINGS)
    priority: int = integer(limits.PRIORITY_LOWEST, limits.PRIORITY_HIGHEST, 0)  # above 0: admins only
    parent_job: str = text(limits.JOB_CHARACTERS, "")  # start from this job's field instead of a fresh one
    mesh: str = text(64, "")  # SHA-256 of an uploaded mesh to refine; "": generate from scratch
    group: str = text(limits.GROUP_CHARACTERS, "")  # the group that it belongs to; "": none
    group_index: int = integer(0, limits.VARIATIONS_LARGEST - 1, 0)  # its place in the group, which no other job has


@dataclass(frozen=True)
class UploadChunk:
    """A chunk of a mesh file, which is named by its SHA-256. Chunks may repeat; one without data asks for progress."""

    sha256: str = text(64)
    total: int = integer(1, limits.UPLOAD_BYTES)  # of the whole file
    offset: int = integer(0, limits.UPLOAD_BYTES)
    data: bytes = binary(limits.UPLOAD_PIECE_BYTES)


@dataclass(frozen=True)
class ListJobs:
    """Ask for the newest jobs, or for those before the given revision. Answered by `JobList`."""

    before: int = integer(0, LARGEST, 0)  # 0: from the newest
    count: int = integer(1, limits.JOBS_LISTED, limits.JOBS_LISTED)


@dataclass(frozen=True)
class CancelJob:
    """Stop a job within one step; its present field becomes a mesh."""

    job: str = text(limits.JOB_CHARACTERS)


@dataclass(frozen=True)
class CancelGroup:
    """Stop every job of a group that has not ended, as `CancelJob`. Answered by a `JobList` of the group."""

    group: str = text(limits.GROUP_CHARACTERS)


@dataclass(frozen=True)
class DiscardGroup:
    """Delete the jobs of a group, those that have not ended as soon as they are stopped.

    Pinned jobs stay, and so does the job `keep`. Answered by a `JobList` of those that stay.
    """

    group: str = text(limits.GROUP_CHARACTERS)
    keep: str = text(limits.JOB_CHARACTERS, "")  # "": none


@dataclass(frozen=True)
class PauseJob:
    """Stop a job within one step and keep a checkpoint."""

    job: str = text(limits.JOB_CHARACTERS)


@dataclass(frozen=True)
class ResumeJob:
    """Put a paused job, or a failed one with a checkpoint, back into the queue."""

    job: str = text(limits.JOB_CHARACTERS)


@dataclass(frozen=True)
class SetPriority:
    """Change a job's priority. Users may lower that of their jobs; admins may raise any."""

    job: str = text(limits.JOB_CHARACTERS)
    priority: int = integer(limits.PRIORITY_LOWEST, limits.PRIORITY_HIGHEST)


@dataclass(frozen=True)
class PinJob:
    """Keep an ended job's files until it is unpinned, or unpin it."""

    job: str = text(limits.JOB_CHARACTERS)
    pinned: bool = boolean()


@dataclass(frozen=True)
class DeleteJob:
    """Delete an ended job and its files."""

    job: str = text(limits.JOB_CHARACTERS)


@dataclass(frozen=True)
class Subscribe:
    """Receive all changes of jobs, and the previews of one job ("" for none). Answered by a `JobList` of all jobs."""

    previews_of: str = text(limits.JOB_CHARACTERS, "")
    meshes_of: str = text(limits.JOB_CHARACTERS, "")  # the job whose live meshes are sent as well; "": none


@dataclass(frozen=True)
class PreviewAck:
    """Credit-based flow control: so many previews were received, and as many more may be sent. Has no reply."""

    count: int = integer(1, 100)


@dataclass(frozen=True)
class GetPreview:
    """Ask for a job's newest preview, once. Answered by a `PreviewReply`."""

    job: str = text(limits.JOB_CHARACTERS)


@dataclass(frozen=True)
class FetchChunk:
    """Ask for a chunk of a job's file. Answered by `Chunk`."""

    job: str = text(limits.JOB_CHARACTERS)
    item: str = enum(*ITEM_KINDS)
    offset: int = integer(0, limits.FILE_BYTES)
    size: int = integer(1, limits.CHUNK_BYTES)


# --- replies


@dataclass(frozen=True)
class Welcome:
    """The server's name, and an id (`epoch`) that is new whenever the server starts."""

    software: str = text(limits.NAME_CHARACTERS)
    epoch: str = text(40)


@dataclass(frozen=True)
class JobReply:
    """The present state of the job that the request named."""

    job: JobSummary = record(JobSummary)


@dataclass(frozen=True)
class PreviewReply:
    """The newest preview of the job that the request named."""

    frame: PreviewFrame = record(PreviewFrame)


@dataclass(frozen=True)
class JobList:
    """Jobs, latest change first, and the latest revision in the list.

    The answer to `Subscribe` has two more: the downloads of models that the user may see, and the revision of the
    capabilities, which grows whenever the server offers something else.
    """

    jobs: tuple[JobSummary, ...] = list_of(JobSummary, limits.JOBS_LISTED)
    changed: int = integer(0, LARGEST)
    downloads: tuple[ModelDownload, ...] = list_of(ModelDownload, limits.MODELS, ())
    capabilities_revision: int = integer(0, LARGEST, 0)


@dataclass(frozen=True)
class Chunk:
    """A chunk of a file, with the whole file's size and SHA-256."""

    offset: int = integer(0, limits.FILE_BYTES)
    data: bytes = binary(limits.CHUNK_BYTES)
    size: int = integer(0, limits.FILE_BYTES)
    sha256: str = text(64)


@dataclass(frozen=True)
class UploadProgress:
    """Bytes received from the beginning: where to continue. At the file's size the mesh is valid and can be used."""

    offset: int = integer(0, limits.UPLOAD_BYTES)


@dataclass(frozen=True)
class Done:
    """The request succeeded and has no result."""


@dataclass(frozen=True)
class Refusal:
    """The request failed: an error code and a message. The client raises or returns it as a `RequestError`."""

    code: str = enum(*CODES)
    message: str = text(limits.MESSAGE_CHARACTERS)


# --- events


@dataclass(frozen=True)
class JobChanged:
    """A job changed. `count` grows by one with each event of this subscriber, so a gap shows lost events."""

    count: int = integer(1, LARGEST)
    job: JobSummary = record(JobSummary)


@dataclass(frozen=True)
class JobDeleted:
    """A job was deleted."""

    count: int = integer(1, LARGEST)
    job: str = text(limits.JOB_CHARACTERS)


@dataclass(frozen=True)
class ServerShutdown:
    """The server is about to stop, and what happens to the jobs. Sent to new subscribers as well."""

    message: str = text(limits.MESSAGE_CHARACTERS)


MESSAGES: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        Hello, GetCapabilities, GetStatus, SubmitJob, UploadChunk, ListJobs, CancelJob, CancelGroup, DiscardGroup,
        PauseJob, ResumeJob, SetPriority, PinJob, DeleteJob, Subscribe, PreviewAck, LiveMeshAck, GetPreview, FetchChunk,
        DownloadModel, StopDownload, MoveJob, DrainDevice, FreeDisk,
        Welcome, Capabilities, ServerStatus, UploadProgress, JobReply, PreviewReply, JobList, Chunk, Done, Refusal,
        DiskFreed, ModelDownloadReply, ModelDownloadChanged, CapabilitiesChanged,
        JobChanged, JobDeleted, PreviewFrame, LiveMeshFrame, ServerShutdown,
    )
}  # fmt: skip

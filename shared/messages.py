# SPDX-License-Identifier: GPL-3.0-or-later
"""Every message, and its bytes: one msgpack map {"version", "id", "type", "body"} a message.

A request carries a number of the client's choosing; its reply carries the same number. Events carry number 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgpack

from . import limits
from .capabilities import Capabilities
from .errors import CODES, ProtocolError
from .failure_causes import FailureCause
from .job_states import JobState
from .limits import LARGEST
from .schema import boolean, from_map, enum, binary, number, record, scalar_map, list_of, short_repr, text, to_map, integer
from .status import ServerStatus
from .uploads import UploadChunk, UploadProgress

STATES = tuple(state.value for state in JobState)
CAUSES = tuple(cause.value for cause in FailureCause)
ITEM_KINDS = ("mesh", "glb")  # files of a job that can be fetched


@dataclass(frozen=True)
class JobSummary:
    """What everybody who may see a job sees of it."""

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
    health: str = text(limits.NAME_CHARACTERS)  # "" until judged
    message: str = text(limits.MESSAGE_CHARACTERS)  # why it failed, was restarted, or what it warns of
    submitted_at: float = number(0, 1e12)  # Unix time by the server's clock
    mesh_bytes: int = integer(0, limits.FILE_BYTES)  # 0: no mesh yet
    mesh_sha256: str = text(64)
    changed: int = integer(0, LARGEST)  # grows with every change of any job
    owner: str = text(limits.OWNER_CHARACTERS, "")  # whose it is; an admin sees everybody's
    priority: int = integer(limits.PRIORITY_LOWEST, limits.PRIORITY_HIGHEST, 0)
    attempt: int = integer(0, LARGEST, 0)  # how often it was given to a worker; only the latest may report
    device: str = text(limits.NAME_CHARACTERS, "")  # where it runs, or ran last
    ready_low_s: float = number(-1, 1e12, -1.0)  # queued: ready in so many seconds at the soonest; -1: unknown
    ready_high_s: float = number(-1, 1e12, -1.0)  # at the latest
    pinned: bool = boolean(False)  # kept until its owner says otherwise
    fetched: bool = boolean(False)  # its whole mesh was taken once; until then it is kept longer
    cause: str = enum(
        *CAUSES, default=""
    )  # why its last attempt ended before its time; "" when none did, or it succeeded since
    resumable: bool = boolean(False)  # failed, with a checkpoint that it can go on from
    has_field: bool = boolean(False)  # its field is kept: a job of another prompt can begin from it
    parent_job: str = text(limits.JOB_CHARACTERS, "")  # the job from whose field it begins
    mesh: str = text(64, "")  # SHA-256 of the uploaded mesh that it refines; "": it makes a prop from nothing


# --- requests


@dataclass(frozen=True)
class Hello:
    """First words of a client, and later its sign of life: the answer tells of a server that was started anew."""

    client: str = text(
        limits.TICKET_CHARACTERS
    )  # made once an installation; part of what makes a retried submit the same
    software: str = text(limits.NAME_CHARACTERS)


@dataclass(frozen=True)
class GetCapabilities:
    """What can this server do?"""


@dataclass(frozen=True)
class GetStatus:
    """How is the server doing? Answered by a `ServerStatus`."""


@dataclass(frozen=True)
class SubmitJob:
    """Make a prop. The same ticket always means the same job, however often it is sent."""

    ticket: str = text(limits.TICKET_CHARACTERS)
    prompt: str = text(limits.PROMPT_CHARACTERS)
    negative: str = text(limits.PROMPT_CHARACTERS)
    model: str = text(limits.NAME_CHARACTERS)
    preset: str = text(limits.NAME_CHARACTERS)
    seed: int = integer(0, limits.SEED_LARGEST)
    settings: dict[str, Any] = scalar_map(limits.SETTINGS)
    priority: int = integer(limits.PRIORITY_LOWEST, limits.PRIORITY_HIGHEST, 0)  # above 0: an admin's to ask for
    parent_job: str = text(limits.JOB_CHARACTERS, "")  # a job from whose field to begin instead of a fresh one
    mesh: str = text(64, "")  # SHA-256 of an uploaded mesh, to refine that; "": from nothing


@dataclass(frozen=True)
class ListJobs:
    """The newest jobs, before the one whose `changed` is given."""

    before: int = integer(0, LARGEST, 0)  # 0: from the newest
    count: int = integer(1, limits.JOBS_LISTED, limits.JOBS_LISTED)


@dataclass(frozen=True)
class CancelJob:
    """Stop a job within a step; what it has becomes a mesh."""

    job: str = text(limits.JOB_CHARACTERS)


@dataclass(frozen=True)
class PauseJob:
    """Stop a job within a step and keep its place to go on from."""

    job: str = text(limits.JOB_CHARACTERS)


@dataclass(frozen=True)
class ResumeJob:
    """Put a paused job back into the queue, or a failed one that left a checkpoint."""

    job: str = text(limits.JOB_CHARACTERS)


@dataclass(frozen=True)
class SetPriority:
    """Let a job go before or after others of its turn: users may lower theirs, admins may raise anybody's."""

    job: str = text(limits.JOB_CHARACTERS)
    priority: int = integer(limits.PRIORITY_LOWEST, limits.PRIORITY_HIGHEST)


@dataclass(frozen=True)
class PinJob:
    """Keep an ended job's files until told otherwise, or no longer."""

    job: str = text(limits.JOB_CHARACTERS)
    pinned: bool = boolean()


@dataclass(frozen=True)
class DeleteJob:
    """Remove an ended job and its files."""

    job: str = text(limits.JOB_CHARACTERS)


@dataclass(frozen=True)
class Subscribe:
    """Send me what changes, and previews of one job ("" for none); answered by the present state of all jobs."""

    previews_of: str = text(limits.JOB_CHARACTERS, "")


@dataclass(frozen=True)
class PreviewAck:
    """So many previews have been taken in: send as many more."""

    count: int = integer(1, 100)


@dataclass(frozen=True)
class FetchChunk:
    """A piece of a job's file."""

    job: str = text(limits.JOB_CHARACTERS)
    item: str = enum(*ITEM_KINDS)
    offset: int = integer(0, limits.FILE_BYTES)
    size: int = integer(1, limits.CHUNK_BYTES)


# --- replies


@dataclass(frozen=True)
class Welcome:
    """The server's name and age; another `epoch` is another start of it."""

    software: str = text(limits.NAME_CHARACTERS)
    epoch: str = text(40)


@dataclass(frozen=True)
class JobReply:
    """The job that the request was about, as it is now."""

    job: JobSummary = record(JobSummary)


@dataclass(frozen=True)
class JobList:
    """Jobs, newest change first, and the number of the newest change that the list contains."""

    jobs: tuple[JobSummary, ...] = list_of(JobSummary, limits.JOBS_LISTED)
    changed: int = integer(0, LARGEST)


@dataclass(frozen=True)
class Chunk:
    """A piece of a file, and the whole file's size and SHA-256."""

    offset: int = integer(0, limits.FILE_BYTES)
    data: bytes = binary(limits.CHUNK_BYTES)
    size: int = integer(0, limits.FILE_BYTES)
    sha256: str = text(64)


@dataclass(frozen=True)
class Done:
    """It is done and there is nothing to say about it."""


@dataclass(frozen=True)
class Refusal:
    """It cannot be done, and why."""

    code: str = enum(*CODES)
    message: str = text(limits.MESSAGE_CHARACTERS)


# --- events


@dataclass(frozen=True)
class JobChanged:
    """A job changed. `count` grows by one an event to this subscriber: a gap means that some were lost."""

    count: int = integer(1, LARGEST)
    job: JobSummary = record(JobSummary)


@dataclass(frozen=True)
class JobDeleted:
    """A job is gone."""

    count: int = integer(1, LARGEST)
    job: str = text(limits.JOB_CHARACTERS)


@dataclass(frozen=True)
class PreviewFrame:
    """A picture of a job after `step` steps: RGB rows from the top, 8 bits, zlib."""

    job: str = text(limits.JOB_CHARACTERS)
    step: int = integer(0, LARGEST)
    width: int = integer(1, 4096)
    height: int = integer(1, 4096)
    data: bytes = binary(limits.REPLY_BYTES)


@dataclass(frozen=True)
class ServerShutdown:
    """The server is about to end, and what becomes of the jobs; a subscriber that comes meanwhile is told too."""

    message: str = text(limits.MESSAGE_CHARACTERS)


MESSAGES: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        Hello, GetCapabilities, GetStatus, SubmitJob, UploadChunk, ListJobs, CancelJob, PauseJob, ResumeJob, SetPriority, PinJob, DeleteJob, Subscribe, PreviewAck, FetchChunk,
        Welcome, Capabilities, ServerStatus, UploadProgress, JobReply, JobList, Chunk, Done, Refusal,
        JobChanged, JobDeleted, PreviewFrame, ServerShutdown,
    )
}  # fmt: skip


class VersionMismatch(ProtocolError):
    """The other side speaks another version of the protocol."""

    def __init__(self, version: object, number: int) -> None:
        super().__init__(
            f"the other side speaks protocol version {short_repr(version)}, this one {limits.PROTOCOL_VERSION}; "
            "update the older of add-on and server"
        )
        self.version, self.number = version, number

    def client_message(self, address: str) -> str:
        """The same for who sits at the client: which side is the older, and so to be updated."""
        older = "server" if isinstance(self.version, int) and self.version < limits.PROTOCOL_VERSION else "add-on"
        return (
            f"the server at {address} speaks version {short_repr(self.version)} of the protocol, the add-on {limits.PROTOCOL_VERSION}; "
            f"update the {older}, then connect again"
        )


def pack(message: Any, number: int = 0) -> bytes:
    """Bytes of a message. Raises ProtocolError when a field breaks its rule."""
    body = to_map(message)
    envelope = {"version": limits.PROTOCOL_VERSION, "id": number, "type": type(message).__name__, "body": body}
    return msgpack.packb(envelope, use_bin_type=True)


def check_request(message: Any) -> Any:
    """The request itself when it may be sent. Raises ProtocolError; a larger one would end the connection without a word."""
    size = len(pack(message, LARGEST))
    if size > limits.REQUEST_BYTES:
        raise ProtocolError(
            f"{type(message).__name__} of {size} bytes; allowed are {limits.REQUEST_BYTES}; give fewer or shorter settings"
        )
    return message


def unpack(data: bytes, max_bytes: int) -> tuple[int, Any]:
    """(number, message) of bytes from outside. Raises ProtocolError, or VersionMismatch for another version."""
    if len(data) > max_bytes:
        raise ProtocolError(f"a message of {len(data)} bytes; allowed are {max_bytes}")
    try:
        envelope = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_array_len=4096,
            max_map_len=4096,
            max_str_len=max_bytes,
            max_bin_len=max_bytes,
            max_ext_len=0,
        )
    except (
        Exception
    ) as error:  # ValueError, UnicodeDecodeError, ExtraData, FormatError, StackError, by version of msgpack
        raise ProtocolError(f"no msgpack message: {type(error).__name__}") from error
    if not isinstance(envelope, dict) or set(envelope) != {"version", "id", "type", "body"}:
        raise ProtocolError("a message is a map of version, id, type and body")
    number = envelope["id"]
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= LARGEST:
        raise ProtocolError(f"a message's id is a whole number from 0 to {LARGEST}")
    if envelope["version"] != limits.PROTOCOL_VERSION:
        raise VersionMismatch(envelope["version"], number)
    try:
        kind = MESSAGES.get(envelope["type"]) if isinstance(envelope["type"], str) else None
        if kind is None:
            raise ProtocolError(f"unknown message type {short_repr(envelope['type'])}; known are {', '.join(MESSAGES)}")
        return number, from_map(kind, envelope["body"])
    except ProtocolError as error:
        error.number = number  # so that whoever asked is told, and need not wait in vain
        raise

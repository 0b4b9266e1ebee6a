# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server tells its workers, or its envoy to a cluster, and hears from them, over a loopback socket that a secret of this start guards."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Any

import msgpack

from dreamwright.shared import limits
from dreamwright.shared.errors import ProtocolError
from dreamwright.shared.messages import CAUSES, LARGEST, JobSummary
from dreamwright.shared.schema import flag, from_map, one_of, raw, real, record, shown, text, to_map, whole, words

PATH_CHARACTERS = 4096
CLUSTER_DEVICES = 4096
STAGES = ("", "loading", "stepping", "meshing")  # of an attempt, which differ in how long may pass without a word


@dataclass(frozen=True)
class RunJob:
    """Make this job, as its attempt `job.attempt`; its folder may hold a checkpoint to go on from."""

    job: JobSummary = record(JobSummary)
    folder: str = text(PATH_CHARACTERS)


@dataclass(frozen=True)
class Stop:
    """Stop after this step: keep the place ("pause"), or make a mesh of what there is ("cancel")."""

    job: str = text(limits.JOB_CHARACTERS)
    why: str = one_of("pause", "cancel")


@dataclass(frozen=True)
class Ready:
    """A worker waits for work."""

    device: str = text(limits.NAME_CHARACTERS)


@dataclass(frozen=True)
class ProgressReport:
    """Steps done; the server's sign of life too."""

    job: str = text(limits.JOB_CHARACTERS)
    step: int = whole(0, LARGEST)
    steps: int = whole(0, LARGEST)
    elapsed_s: float = real(0, 1e12)
    eta_s: float = real(-1, 1e12)
    attempt: int = whole(0, LARGEST, 0)  # the report counts only while this is the job's newest; 0 never is


@dataclass(frozen=True)
class StatusReport:
    """A health verdict, a warning, a restart, a stage of the work."""

    job: str = text(limits.JOB_CHARACTERS)
    health: str = text(limits.NAME_CHARACTERS)
    message: str = text(limits.MESSAGE_CHARACTERS)
    attempt: int = whole(0, LARGEST, 0)  # the report counts only while this is the job's newest; 0 never is
    stage: str = one_of(*STAGES, default="")  # what it does from now on; "": what it did


@dataclass(frozen=True)
class PreviewReport:
    """A preview: RGB rows from the top, 8 bits, zlib."""

    job: str = text(limits.JOB_CHARACTERS)
    step: int = whole(0, LARGEST)
    width: int = whole(1, 4096)
    height: int = whole(1, 4096)
    data: bytes = raw(limits.REPLY_BYTES)
    attempt: int = whole(0, LARGEST, 0)  # the report counts only while this is the job's newest; 0 never is


@dataclass(frozen=True)
class JobFinished:
    """The job ended; a mesh lies in its folder when `meshed`."""

    job: str = text(limits.JOB_CHARACTERS)
    how: str = one_of("succeeded", "failed", "paused", "cancelled")
    message: str = text(limits.MESSAGE_CHARACTERS)
    meshed: bool = flag()
    attempt: int = whole(0, LARGEST, 0)  # the report counts only while this is the job's newest; 0 never is
    cause: str = one_of(*CAUSES, default="")  # of a failure


@dataclass(frozen=True)
class DevicesAvailable:
    """The GPUs of a cluster, one a device."""

    devices: tuple[str, ...] = words(CLUSTER_DEVICES)


@dataclass(frozen=True)
class ActorFound:
    """An actor that a cluster has for this server, from before its present envoy."""

    job: str = text(limits.JOB_CHARACTERS)
    attempt: int = whole(1, LARGEST)
    device: str = text(limits.NAME_CHARACTERS)


@dataclass(frozen=True)
class Connected:
    """The envoy has a cluster, and has told of its slots and of every actor that it found."""


@dataclass(frozen=True)
class ConnectionFailed:
    """The envoy has no cluster, and ends."""

    message: str = text(limits.MESSAGE_CHARACTERS)


@dataclass(frozen=True)
class ActorLost:
    """An actor is no more, and did not say how its job ended."""

    job: str = text(limits.JOB_CHARACTERS)
    attempt: int = whole(1, LARGEST)
    reason: str = text(limits.MESSAGE_CHARACTERS)


@dataclass(frozen=True)
class KillActor:
    """End an actor, whatever it does, and give its GPU back."""

    job: str = text(limits.JOB_CHARACTERS)
    attempt: int = whole(1, LARGEST)


Report = ProgressReport | StatusReport | PreviewReport | JobFinished
OF_A_CLUSTER = (DevicesAvailable, ActorFound, Connected, ConnectionFailed, ActorLost, KillActor)
KINDS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (RunJob, Stop, Ready, ProgressReport, StatusReport, PreviewReport, JobFinished, *OF_A_CLUSTER)
}


def pack_order(secret: str, message: Any) -> bytes:
    """Bytes of an order or a report: the secret, then [kind, fields] in msgpack."""
    return secret.encode() + msgpack.packb([type(message).__name__, to_map(message)], use_bin_type=True)


def unpack_order(secret: str, data: bytes) -> Any:
    """The message. Raises ProtocolError for a wrong secret or anything malformed."""
    lock = secret.encode()
    if not hmac.compare_digest(
        data[: len(lock)], lock
    ):  # before anything is unpacked: whoever is on this machine can send here
        raise ProtocolError("an order without this start's secret")
    try:
        kind, body = msgpack.unpackb(
            data[len(lock) :], raw=False, strict_map_key=True, max_array_len=4096, max_map_len=4096, max_ext_len=0
        )
    except Exception as error:  # the many errors of msgpack; see shared.messages.unpack
        raise ProtocolError(f"no order: {type(error).__name__}") from error
    if not isinstance(kind, str) or kind not in KINDS:
        raise ProtocolError(f"no order: {shown(kind)}; known are {', '.join(KINDS)}")
    return from_map(KINDS[kind], body)

# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages between the server and its workers, or its bridge to a Ray cluster.

They travel over a loopback socket; each carries a secret that is made anew at every start of the server.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

from dreamwright.shared import limits
from dreamwright.shared.errors import ProtocolError
from dreamwright.shared.limits import LARGEST
from dreamwright.shared.live_mesh_messages import LiveMeshFrame
from dreamwright.shared.messages import CAUSES, JobSummary, PreviewFrame
from dreamwright.shared.schema import (
    boolean,
    enum,
    from_map,
    integer,
    number,
    record,
    scalar_map,
    short_repr,
    text,
    text_list,
    to_map,
)

PATH_CHARACTERS = 4096
CLUSTER_DEVICES = 4096
STAGES = ("", "loading", "stepping", "meshing")  # of an attempt; each has its own hang timeout


@dataclass(frozen=True)
class RunJob:
    """Order: run attempt `attempt` of a job in `folder`, from its newest checkpoint if there is one."""

    job: str = text(limits.JOB_CHARACTERS)
    attempt: int = integer(1, LARGEST)
    device: str = text(limits.NAME_CHARACTERS)
    folder: str = text(PATH_CHARACTERS)
    prompt: str = text(limits.PROMPT_CHARACTERS)
    negative: str = text(limits.PROMPT_CHARACTERS)
    model: str = text(limits.NAME_CHARACTERS)
    preset: str = text(limits.NAME_CHARACTERS)
    seed: int = integer(0, limits.SEED_LARGEST)
    settings: dict[str, Any] = scalar_map(limits.SETTINGS)
    cause: str = enum(*CAUSES, default="")  # why the attempt before it failed; "": there was none, or it did not fail
    parent_job: str = text(limits.JOB_CHARACTERS, "")  # the job whose field this one starts from
    mesh: str = text(64, "")  # SHA-256 of the uploaded mesh to refine; "": from text only


def run_job_order(summary: JobSummary, folder: Path) -> RunJob:
    """The order that starts the newest attempt of a job: only what a worker needs of the job's summary."""
    return RunJob(
        job=summary.job,
        attempt=summary.attempt,
        device=summary.device,
        folder=str(folder),
        prompt=summary.prompt,
        negative=summary.negative,
        model=summary.model,
        preset=summary.preset,
        seed=summary.seed,
        settings=dict(summary.settings),
        cause=summary.cause,
        parent_job=summary.parent_job,
        mesh=summary.mesh,
    )


@dataclass(frozen=True)
class Stop:
    """Order: stop after this step. "pause" keeps a checkpoint; "cancel" makes a mesh of what there is."""

    job: str = text(limits.JOB_CHARACTERS)
    mode: str = enum("pause", "cancel")


@dataclass(frozen=True)
class Watch:
    """Order: from the next step on make live meshes, which somebody wants, or make none."""

    job: str = text(limits.JOB_CHARACTERS)
    is_watched: bool = boolean()


@dataclass(frozen=True)
class Ready:
    """Report: a worker has no job and takes one."""

    device: str = text(limits.NAME_CHARACTERS)


@dataclass(frozen=True)
class ProgressReport:
    """Report: steps done. Also the heartbeat of a training attempt."""

    job: str = text(limits.JOB_CHARACTERS)
    step: int = integer(0, LARGEST)
    steps: int = integer(0, LARGEST)
    elapsed_s: float = number(0, 1e12)
    eta_s: float = number(-1, 1e12)  # -1: unknown
    attempt: int = integer(0, LARGEST, 0)  # reports of any attempt but the job's newest are ignored; 0 never counts


@dataclass(frozen=True)
class StatusReport:
    """Report: a health verdict, a warning, a restart, or the next stage."""

    job: str = text(limits.JOB_CHARACTERS)
    health: str = text(limits.NAME_CHARACTERS)
    message: str = text(limits.MESSAGE_CHARACTERS)
    attempt: int = integer(0, LARGEST, 0)  # see `ProgressReport.attempt`
    stage: str = enum(*STAGES, default="")  # that begins now; "": unchanged


@dataclass(frozen=True)
class PreviewReport:
    """Report: a preview, already in the form that subscribers receive."""

    frame: PreviewFrame = record(PreviewFrame)
    attempt: int = integer(0, LARGEST, 0)  # see `ProgressReport.attempt`

    @property
    def job(self) -> str:
        """The job that the preview shows."""
        return self.frame.job


@dataclass(frozen=True)
class LiveMeshReport:
    """Report: a live mesh, already in the form that subscribers receive."""

    frame: LiveMeshFrame = record(LiveMeshFrame)
    attempt: int = integer(0, LARGEST, 0)  # see `ProgressReport.attempt`

    @property
    def job(self) -> str:
        """The job whose prop it is."""
        return self.frame.job


@dataclass(frozen=True)
class JobFinished:
    """Report: the last one of an attempt. With `meshed` the job's folder holds a mesh."""

    job: str = text(limits.JOB_CHARACTERS)
    how: str = enum("succeeded", "failed", "paused", "cancelled")
    message: str = text(limits.MESSAGE_CHARACTERS)
    meshed: bool = boolean()
    attempt: int = integer(0, LARGEST, 0)  # see `ProgressReport.attempt`
    cause: str = enum(*CAUSES, default="")  # of a failure
    mesh_sha256: str = text(64, "")  # of the mesh file; "": the server computes it


@dataclass(frozen=True)
class DevicesAvailable:
    """Report of the bridge: the GPUs of the cluster, one device each."""

    devices: tuple[str, ...] = text_list(CLUSTER_DEVICES)


@dataclass(frozen=True)
class ActorFound:
    """Report of the bridge: an actor of this server that an earlier bridge started."""

    job: str = text(limits.JOB_CHARACTERS)
    attempt: int = integer(1, LARGEST)
    device: str = text(limits.NAME_CHARACTERS)


@dataclass(frozen=True)
class Connected:
    """Report of the bridge: it is connected, and has reported the devices and every actor found."""


@dataclass(frozen=True)
class ConnectionFailed:
    """Report of the bridge: it cannot reach the cluster, and ends."""

    message: str = text(limits.MESSAGE_CHARACTERS)


@dataclass(frozen=True)
class ActorLost:
    """Report of the bridge: an actor ended without reporting how its job ended."""

    job: str = text(limits.JOB_CHARACTERS)
    attempt: int = integer(1, LARGEST)
    reason: str = text(limits.MESSAGE_CHARACTERS)


@dataclass(frozen=True)
class KillActor:
    """Order to the bridge: kill an actor and free its GPU."""

    job: str = text(limits.JOB_CHARACTERS)
    attempt: int = integer(1, LARGEST)


Report = ProgressReport | StatusReport | PreviewReport | LiveMeshReport | JobFinished
MESSAGE_TYPES: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        RunJob, Stop, Watch, Ready, ProgressReport, StatusReport, PreviewReport, LiveMeshReport, JobFinished,
        DevicesAvailable, ActorFound, Connected, ConnectionFailed, ActorLost, KillActor,
    )
}  # fmt: skip


def pack_order(secret: str, message: Any) -> bytes:
    """Bytes of an order or a report: the secret, then [type, fields] in msgpack. Raises ProtocolError."""
    return secret.encode() + bytes(msgpack.packb([type(message).__name__, to_map(message)], use_bin_type=True))


def unpack_order(secret: str, data: bytes) -> Any:
    """The message in `data`. Raises ProtocolError for a wrong secret or malformed bytes."""
    prefix = secret.encode()
    # Checked before anything is unpacked: every user of the machine can connect to the port.
    if not hmac.compare_digest(data[: len(prefix)], prefix):
        raise ProtocolError("a message without this start's secret")
    try:
        kind, body = msgpack.unpackb(
            data[len(prefix) :], raw=False, strict_map_key=True, max_array_len=4096, max_map_len=4096, max_ext_len=0
        )
    except Exception as error:  # msgpack raises many types; see shared.codec.unpack
        raise ProtocolError(f"not a worker message: {type(error).__name__}") from error
    if not isinstance(kind, str) or kind not in MESSAGE_TYPES:
        raise ProtocolError(f"not a worker message: {short_repr(kind)}; known are {', '.join(MESSAGE_TYPES)}")
    return from_map(MESSAGE_TYPES[kind], body)

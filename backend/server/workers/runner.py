# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface between the server and what runs its jobs: local worker processes, or actors of a Ray cluster.

The queue belongs to the job store. A runner gets one job for each idle device, so waiting jobs stay with the server,
where they can be cancelled and reordered. A runner never restarts a job: every start is an attempt that the job store
counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import zmq

from .worker_protocol import Report, RunJob


@dataclass(frozen=True)
class WorkerExited:
    """A worker that ended without reporting a result; `job` is "" when it had none."""

    job: str
    status: int  # exit status of the process, where it is known
    attempt: int = 0  # that it was running; 0: the job's newest
    reason: str = ""  # first half of a sentence, as "its node was lost"; "": derived from `status`


class Runner(Protocol):
    """All methods return at once and are called from the server's one thread."""

    @property
    def socket(self) -> zmq.Socket[bytes]:
        """Readable when `reports` may have something to return."""

    @property
    def survives_server(self) -> bool:
        """Whether its workers continue without the server, and can be reattached when it is back."""

    @property
    def devices(self) -> tuple[str, ...]:
        """Devices that exist now, busy or not. Machines may come and go; a device that comes back keeps its name."""

    def reattach(self, running: Mapping[str, int]) -> set[str]:
        """Called once, at the server's start, with the attempt of each job that the job store counts as running.

        Returns the jobs that are still being run: their devices are busy, and their reports arrive. Every other worker
        of this server that the runner finds is ended.
        """

    def idle_devices(self) -> list[str]:
        """Devices that can take a job now."""

    def assign(self, device: str, order: RunJob) -> None:
        """Start an attempt, whose fence is raised, on an idle device. Never raises: failures are reported."""

    def stop(self, job: str, mode: str) -> None:
        """Stop a job after its step: "pause" keeps a checkpoint, "cancel" makes a mesh of what there is.

        `JobFinished` or `WorkerExited` follows; a runner may kill a worker that does not react. Unknown jobs are
        ignored.
        """

    def watch(self, job: str, is_watched: bool) -> None:
        """Whether somebody wants a job's live meshes; none does at its start. Unknown jobs are ignored."""

    def kill(self, job: str) -> None:
        """Kill the worker of a job; `WorkerExited` follows. Unknown jobs are ignored."""

    def reports(self) -> Iterator[Report | WorkerExited]:
        """Reports since the last call. Every assigned or reattached attempt ends in `JobFinished` or `WorkerExited`.

        The device is idle once that report has been taken. Earlier reports may be dropped in favor of later ones.
        """

    def close(self, grace_s: float = 5.0) -> None:
        """The server ends. Workers that cannot survive it are ended too; the others wait to be reattached."""

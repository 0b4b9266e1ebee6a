# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server asks of whatever runs its jobs: worker processes of this machine (`foreman`), or actors of a Ray cluster.

The queue is the ledger's. A runner is given one job a free device, so what waits stays with the server, where it can be
cancelled and reordered; it never starts a job again by itself, since each start is an attempt that the ledger counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import zmq

from dreamwright.shared.messages import JobSummary

from .worker_protocol import Report


@dataclass(frozen=True)
class WorkerExited:
    """What made a job is no more, and did not say how the job ended; `job` is "" where there was none."""

    job: str
    status: int  # of the process, where it is known
    attempt: int = 0  # that died; 0: the job's newest
    reason: str = ""  # the beginning of a sentence, "its node was lost"; "": the status says it


class Runner(Protocol):
    """All methods return at once, and all are called from the server's one thread."""

    @property
    def socket(self) -> zmq.Socket:
        """Readable when `reports` may have something to say."""

    @property
    def survives_server(self) -> bool:
        """Whether what it runs goes on without the server, to be adopted when that is back."""

    @property
    def devices(self) -> tuple[str, ...]:
        """What jobs can be given to now, busy or not. Machines may come and go; a device that comes back has its old name."""

    def reattach(self, running: Mapping[str, int]) -> set[str]:
        """Called once, at the server's start: `running` says which attempt of which jobs the ledger counts as running.

        Answers which of these are being worked on still: their devices are busy, and their reports come. Whatever else
        the runner finds at work for this server is ended.
        """

    def idle_devices(self) -> list[str]:
        """Devices that a job can be given to now."""

    def assign(self, device: str, job: JobSummary, folder: Path) -> None:
        """Put an idle device to work on an attempt, whose fence is raised. Never fails: what goes wrong is reported."""

    def stop(self, job: str, why: str) -> None:
        """Stop a job after its step: "pause" keeps the place, "cancel" makes a mesh of what there is.

        `JobFinished` or `WorkerExited` follows; a runner may use force on what does not heed. For a job that it does not have: nothing.
        """

    def kill(self, job: str) -> None:
        """End what makes a job at once, wherever it is; `WorkerExited` follows. For a job that it does not have: nothing."""

    def reports(self) -> Iterator[Report | WorkerExited]:
        """What was said since the last call. Every attempt that was given or adopted ends in one `JobFinished` or `WorkerExited`.

        After its `JobFinished` was taken from here, or its `WorkerExited`, the device is idle again. Reports between may be left out in
        favor of later ones.
        """

    def close(self, grace_s: float = 5.0) -> None:
        """The server ends. What only lives by this runner is ended too; the rest waits to be adopted."""

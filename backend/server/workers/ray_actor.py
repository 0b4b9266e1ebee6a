# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs on a node of a Ray cluster: a detached actor that makes one attempt at a job and keeps what it has to say.

It outlives the server, which asks it again when it is back. torch is loaded only once Ray has chosen the GPU.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dreamwright.shared import __version__

from ..monitoring.logging_setup import inherit_log
from .fencing import FENCE_FILE
from .job_executor import JobExecutor
from .worker_protocol import JobFinished, StatusReport, RunJob, pack_order, unpack_order

UNHEARD_S = 600.0  # that an ended actor holds its GPU for a server that does not ask; its job is then made anew from a checkpoint
SEE_FOLDER_S = 60.0  # NFS may show a node what a folder held up to a minute ago (acdirmax)
NO_SECRET = ""  # the reports travel inside Ray; packing them checks them at the other end


class Mailbox:
    """The newest report of each kind, numbered: what is kept stays small however long nobody asks, and none is lost twice."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[int, bytes]] = {}
        self._count = 0
        self._changed = threading.Condition()

    def put(self, report: Any) -> None:
        """Keep a report in place of the one of its kind."""
        kind = "health" if isinstance(report, StatusReport) and report.health else type(report).__name__
        with self._changed:
            self._count += 1
            self._kept[kind] = self._count, pack_order(NO_SECRET, report)
            self._changed.notify_all()

    def after(self, number: int, wait_s: float) -> tuple[int, list[bytes]]:
        """(number to ask for next, reports later than `number` in order); waits for one, at most `wait_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._count > number, wait_s)
            return self._count, [data for count, data in sorted(self._kept.values()) if count > number]


class JobActor:
    """One attempt, in a thread of its own. Its constructor cannot fail, so that every failure becomes a report.

    `compute`: "cuda", or "cpu" for clusters that only say they have GPUs. `version`: the server's Dreamwright.
    """

    def __init__(self, job: str, attempt: int, order: bytes, compute: str, version: str) -> None:
        self._job, self._attempt, self._order, self._compute, self._version = job, attempt, order, compute, version
        self._box = Mailbox()
        self._why, self._heeded, self._asked_at = "", False, time.monotonic()
        threading.Thread(target=self._run, daemon=True).start()

    def listen(self, after: int, wait_s: float) -> tuple[int, bool, list[bytes]]:
        """(number for the next call, whether a wish to stop was seen by the job, reports since `after`)."""
        self._asked_at = time.monotonic()
        number, reports = self._box.after(after, wait_s)
        return number, self._heeded, reports

    def stop(self, why: str) -> None:
        """See `Runner.stop`."""
        self._why = why

    def _told_to_stop(self) -> str:
        self._heeded = bool(self._why)
        return self._why

    def _run(self) -> None:
        inherit_log()
        try:
            refusal = node_error(self._version, self._compute)  # first: an order of another version may not be readable
            if not refusal:
                work: RunJob = unpack_order(NO_SECRET, self._order)
                refusal = job_folder_error(Path(work.folder), self._attempt)
            if refusal:
                self._box.put(JobFinished(self._job, "failed", refusal, False, self._attempt))
            else:
                JobExecutor(
                    work, "cuda:0" if self._compute == "cuda" else "cpu", self._box.put, self._told_to_stop
                ).run()
            while time.monotonic() - self._asked_at < UNHEARD_S:
                time.sleep(1.0)
        except BaseException:
            traceback.print_exc()  # into Ray's log of this worker
            raise
        finally:
            os._exit(0)  # a thread that ended without a word must not leave an actor that looks alive


def node_error(version: str, compute: str) -> str:
    """Why this node cannot make jobs of a server of this version, or "". The first to load torch."""
    node = socket.gethostname()
    if version != __version__:
        return f"the cluster's node {node} has dreamwright {__version__}, the server has {version}; install the same on all, then send it again"
    if compute == "cuda":
        import torch

        if not torch.cuda.is_available():
            return (
                f"the cluster's node {node} told Ray of a GPU that PyTorch does not see there; install the driver and a PyTorch "
                "with CUDA on it, or start its Ray with --num-gpus=0, then send the job again"
            )
    return ""


def job_folder_error(
    folder: Path, attempt: int, patience_s: float = SEE_FOLDER_S, sleep: Callable[[float], None] = time.sleep
) -> str:
    """Why this node does not see a job's folder as the server does, or "": its fence must show this attempt, or a later."""
    waited = 0.0
    while True:
        try:
            if int((folder / FENCE_FILE).read_text(encoding="ascii")) >= attempt:
                return ""
            found = "an older state of it"
        except (OSError, ValueError) as error:
            found = getattr(error, "strerror", None) or "an unreadable fence"
        if waited >= patience_s:
            return (
                f"the cluster's node {socket.gethostname()} does not see the job's folder {folder} as the server does ({found}); mount "
                "the storage that holds the server's --state at the same path on every node, then send the job again"
            )
        sleep(1.0)
        waited += 1.0
